"""The manifest of a teacher cache: what was run on what, and how far."""

import contextlib
import json
import os
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import filelock

from keras_dskd.internal import files
from keras_dskd.internal.types import Config, FilePath, Nested

MANIFEST = "manifest.json"
FORMAT = "keras_dskd teacher cache 2"

_LOCK = ".lock"


def read_manifest(path: FilePath) -> Config | None:
    """The manifest in a folder, or `None` where a cache can begin.

    Raises:
        ValueError: If it is damaged or of another format, or the path is a file or a
            folder of something else.
    """
    path = os.fspath(path)
    if os.path.exists(path) and not os.path.isdir(path):
        raise ValueError(f'A teacher cache is a folder. Received a file: "{path}"')
    filepath = os.path.join(path, MANIFEST)
    if not os.path.exists(filepath):
        others = [
            entry
            for entry in (os.listdir(path) if os.path.isdir(path) else ())
            # What a process killed early leaves behind.
            if entry != _LOCK and not files.is_partial(entry, MANIFEST)
        ]
        if others:
            raise ValueError(
                f'The folder "{path}" is not empty and holds no teacher cache, but '
                f"{sorted(others)[:5]}. Nothing was changed. Pass another `path`."
            )
        return None
    with open(filepath, "rb") as file:
        content = file.read()
    try:
        manifest = json.loads(content)
        checksum = manifest.pop("checksum")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(damaged(filepath, "It cannot be read")) from error
    if manifest.get("format") != FORMAT:
        raise ValueError(
            f'"{filepath}" is of the format {manifest.get("format")!r}. Expected: '
            f"{FORMAT!r}. Pass another `path`, or delete the folder to make the cache "
            "anew."
        )
    if checksum != _checksum(manifest):
        raise ValueError(damaged(filepath, "Its checksum differs"))
    return manifest


def read_same(path: FilePath, wanted: Config) -> Config | None:
    """The manifest in a folder, or `None` where a cache can begin.

    Raises:
        ValueError: If it is of another teacher, other layers or data than wanted.
    """
    manifest = read_manifest(path)
    if manifest is None:
        return None
    differences = list(_differences(manifest, wanted))
    if differences:
        raise ValueError(
            f'The teacher cache in "{path}" is another one: '
            f"{'; '.join(differences)}. Pass another `path`, or delete the folder to "
            "make it anew."
        )
    return manifest


def write_manifest(path: FilePath, manifest: Config) -> None:
    """Puts a manifest in the place of the folder's older one."""
    content = {**manifest, "checksum": _checksum(manifest)}
    with files.replacing(os.path.join(path, MANIFEST)) as written:
        with open(written, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)


@contextlib.contextmanager
def locked(path: FilePath) -> Iterator[None]:
    """A context in which no other process writes to the folder.

    Raises:
        ValueError: If another one does.
    """
    os.makedirs(path, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(files.holding(os.path.join(path, _LOCK)))
        except filelock.Timeout as error:
            raise ValueError(
                f'Another process is writing the teacher cache in "{path}". Wait for '
                "it, or pass another `path`."
            ) from error
        except OSError as error:
            warnings.warn(
                f'Files in "{path}" cannot be locked ({error}). Let only one process '
                "at a time write a teacher cache there.",
                stacklevel=2,
            )
        yield


def describe(structure: Nested, leaf: Callable[[Any], Any]) -> Nested:
    """A structure of dicts, lists and tuples as plain data; `leaf` gives the rest."""
    if isinstance(structure, dict):
        return {"dict": {key: describe(item, leaf) for key, item in structure.items()}}
    if isinstance(structure, (list, tuple)):
        kind = "list" if isinstance(structure, list) else "tuple"
        return {kind: [describe(item, leaf) for item in structure]}
    return leaf(structure)


def rebuild(description: Nested, leaf: Callable[[Any], Any]) -> Nested:
    """The structure that `describe` was given; `leaf` takes what it gave."""
    if "dict" in description:
        return {key: rebuild(item, leaf) for key, item in description["dict"].items()}
    for kind in (list, tuple):
        if kind.__name__ in description:
            return kind(rebuild(item, leaf) for item in description[kind.__name__])
    return leaf(description)


def leaves(structure: Nested) -> list[Any]:
    """What a structure of dicts, lists and tuples holds, in an order of its own."""
    if isinstance(structure, dict):
        return [leaf for key in sorted(structure) for leaf in leaves(structure[key])]
    if isinstance(structure, (list, tuple)):
        return [leaf for item in structure for leaf in leaves(item)]
    return [structure]


def damaged(filepath: str, how: str) -> str:
    """What an error says of a damaged file."""
    return (
        f'The teacher cache is damaged: "{filepath}". {how}. Delete the folder '
        f'"{os.path.dirname(filepath)}" and make the cache anew.'
    )


def _checksum(manifest: Config) -> int:
    return zlib.crc32(json.dumps(manifest, sort_keys=True).encode())


def _differences(cached: Config, wanted: Config) -> Iterator[str]:
    """What a cache has otherwise than wanted, as texts."""

    def differ(*keys: str) -> str | None:
        one, other = cached, wanted
        for key in keys:
            one, other = one[key], other[key]
        return None if one == other else f"cached {one}, received {other}"

    if cached["teacher"]["fingerprint"] != wanted["teacher"]["fingerprint"]:
        one, other = (
            f'"{m["teacher"]["name"]}" with weights {m["teacher"]["fingerprint"][:8]}'
            for m in (cached, wanted)
        )
        yield f"teacher: cached {one}, received {other}"
    for what, keys in (
        ("dtype policies", ["teacher", "dtype_policies"]),
        ("layers", ["layers"]),
        ("pooled layers", ["pooled"]),
        ("dtype", ["dtype"]),
        ("samples", ["data", "samples"]),
    ):
        if differ(*keys):
            yield f"{what}: {differ(*keys)}"
    if differ("data", "samples"):
        return
    if differ("data", "inputs"):
        yield f"inputs: {differ('data', 'inputs')}"
    elif differ("data", "digest"):
        yield (
            "data: the inputs have the shapes of the cached ones, and other values "
            "or another order"
        )
