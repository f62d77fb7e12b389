"""The manifest of a teacher cache: what was run on what, and the finished rows."""

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
from keras_dskd.teacher_cache import manifest_form

MANIFEST = "manifest.json"
FORMAT = "keras_dskd teacher cache 2"

_LOCK = ".lock"
_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
_NEW = "Pass another `path`, or delete the folder to create the cache again."


def read_manifest(path: FilePath) -> Config | None:
    """The manifest in a folder, or `None` if a new cache can be created there.

    Raises:
        ValueError: If the manifest is damaged or has another format, the path is a
            file, or the folder contains something else.
    """
    path = os.fspath(path)
    if os.path.exists(path) and not os.path.isdir(path):
        raise ValueError(f'A teacher cache is a folder. Received a file: "{path}"')
    filepath = os.path.join(path, MANIFEST)
    if not os.path.exists(filepath):
        others = [
            entry
            for entry in (os.listdir(path) if os.path.isdir(path) else ())
            # A process that was killed early leaves these.
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
    except _UNREADABLE as error:
        raise ValueError(damaged(filepath, "It cannot be read")) from error
    if manifest.get("format") != FORMAT:
        raise ValueError(
            f'"{filepath}" is of the format {manifest.get("format")!r}. Expected: '
            f"{FORMAT!r}. {_NEW}"
        )
    if checksum != _checksum(manifest):
        raise ValueError(damaged(filepath, "Its checksum differs"))
    if problem := manifest_form.problem(manifest):
        raise ValueError(damaged(filepath, f"{problem[0].upper()}{problem[1:]}"))
    return manifest


def read_matching(path: FilePath, expected: Config) -> Config | None:
    """The manifest in a folder, or `None` if a new cache can be created there.

    Raises:
        ValueError: If it belongs to another teacher, or to other layers or data.
    """
    manifest = read_manifest(path)
    if manifest is None:
        return None
    differences = list(_differences(manifest, expected))
    if differences:
        raise ValueError(
            f'The teacher cache in "{path}" is another one: '
            f"{'; '.join(differences)}. {_NEW}"
        )
    return manifest


def write_manifest(path: FilePath, manifest: Config) -> None:
    """Replaces the manifest in a folder."""
    content = {**manifest, "checksum": _checksum(manifest)}
    with files.replacing(os.path.join(path, MANIFEST)) as written:
        with open(written, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)


@contextlib.contextmanager
def locked(path: FilePath) -> Iterator[None]:
    """A context in which no other process writes to the folder.

    Raises:
        ValueError: If another process is writing to it.
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
    """Encodes a structure of dicts, lists and tuples for JSON, which has no tuples."""
    if isinstance(structure, dict):
        return {"dict": {key: describe(item, leaf) for key, item in structure.items()}}
    if isinstance(structure, (list, tuple)):
        kind = "list" if isinstance(structure, list) else "tuple"
        return {kind: [describe(item, leaf) for item in structure]}
    return leaf(structure)


def rebuild(description: Nested, leaf: Callable[[Any], Any]) -> Nested:
    """Decodes what `describe` encoded."""
    if "dict" in description:
        return {key: rebuild(item, leaf) for key, item in description["dict"].items()}
    for kind in (list, tuple):
        if kind.__name__ in description:
            return kind(rebuild(item, leaf) for item in description[kind.__name__])
    return leaf(description)


def damaged(filepath: str, problem: str) -> str:
    """The message of an error about a damaged file."""
    return (
        f'The teacher cache is damaged: "{filepath}". {problem}. Delete the folder '
        f'"{os.path.dirname(filepath)}" and create the cache again.'
    )


def _checksum(manifest: Config) -> int:
    return zlib.crc32(json.dumps(manifest, sort_keys=True).encode())


def _differences(cached: Config, expected: Config) -> Iterator[str]:
    """How a cache differs from the expected one, as texts."""
    teachers = [manifest["teacher"] for manifest in (cached, expected)]
    names = [f'"{it["name"]}" with weights {it["fingerprint"][:8]}' for it in teachers]
    data = [manifest["data"] for manifest in (cached, expected)]
    if teachers[0]["fingerprint"] != teachers[1]["fingerprint"]:
        yield f"teacher: cached {names[0]}, received {names[1]}"
    pairs = [
        ("dtype policies", [teacher["dtype_policies"] for teacher in teachers]),
        ("layers", [cached["layers"], expected["layers"]]),
        ("pooled layers", [cached["pooled"], expected["pooled"]]),
        ("dtype", [cached["dtype"], expected["dtype"]]),
        ("samples", [inputs["samples"] for inputs in data]),
    ]
    if data[0]["samples"] == data[1]["samples"]:  # Shapes contain it.
        pairs.append(("inputs", [inputs["inputs"] for inputs in data]))
    for what, (old, new) in pairs:
        if old != new:
            yield f"{what}: cached {old}, received {new}"
    if (
        data[0]["inputs"] == data[1]["inputs"]
        and data[0]["digest"] != data[1]["digest"]
    ):
        yield (
            "data: the inputs have the shapes of the cached ones, but other values or "
            "another order"
        )
