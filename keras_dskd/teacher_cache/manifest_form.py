"""The form of a manifest: which entries it has, and of which types."""

import itertools
import math
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

from keras_dskd.internal.types import Config

_KINDS = ("dict", "list", "tuple")
#: Whether a value is as it should be.
_Is: TypeAlias = Callable[[Any], bool]


def problem(manifest: Any) -> str | None:
    """What is wrong with a manifest, or `None` if its form is right."""
    try:
        _check(manifest)
    except _WrongForm as error:
        return f"{error} is wrong"
    except RecursionError:
        return "its structure is too deep"
    return None


class _WrongForm(Exception):
    """Its text is the path of the entry whose form is wrong."""


def _check(manifest: Any) -> None:
    _check_entries(manifest, _ENTRIES, "the manifest")
    samples = manifest["data"]["samples"]
    if manifest["finished_rows"] > samples:
        raise _WrongForm('"finished_rows"')
    if not set(manifest["layers"]) <= set(manifest["features"]):
        raise _WrongForm('"layers"')
    for name, entries in manifest["features"].items():
        for entry in _leaves(entries, f'"features" of {name!r}'):
            _check_entries(entry, _FILE, f'"features" of {name!r}')
            if entry["shape"][0] != samples:
                raise _WrongForm(f'"shape" of {name!r}')
    for leaf in _leaves(manifest["data"]["inputs"], '"inputs"'):
        _check_entries(leaf, _INPUT, '"inputs"')


def _check_entries(value: Any, form: dict[str, _Is], where: str) -> None:
    if not isinstance(value, dict):
        raise _WrongForm(where)
    for name, is_right in form.items():
        if name not in value or not is_right(value[name]):
            raise _WrongForm(f'"{name}"')


def _leaves(description: Any, where: str) -> Iterator[Any]:
    """The leaves of a structure that `manifest.describe` encoded."""
    kinds = _KINDS if isinstance(description, dict) else ()
    kind = next((kind for kind in kinds if kind in description), None)
    if kind is None:
        yield description
        return
    items = description[kind]
    if not isinstance(items, dict if kind == "dict" else list):
        raise _WrongForm(where)
    inner = items.values() if isinstance(items, dict) else items
    yield from itertools.chain.from_iterable(_leaves(item, where) for item in inner)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    return is_integer and 0 <= value < 2**62


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _is_list(is_item: _Is) -> _Is:
    return lambda value: isinstance(value, list) and all(map(is_item, value))


def _is_shape(value: Any) -> bool:
    is_shape = _is_list(_is_count)(value) and len(value) > 0
    return is_shape and math.prod(value) < 2**62


def _is_file_name(value: Any) -> bool:
    return (
        isinstance(value, str)
        and value.endswith(".npy")
        and "\0" not in value
        and os.path.basename(value) == value
    )


def _is_dtype(value: Any) -> bool:
    try:
        return isinstance(value, str) and not np.dtype(value).hasobject
    except (TypeError, ValueError):
        return False


def _is_rounding(value: Any) -> bool:
    is_pair = _is_list(_is_number)
    return isinstance(value, dict) and all(
        is_pair(pair) and len(pair) == 2 for pair in value.values()
    )


def _fits(form: dict[str, _Is]) -> _Is:
    def is_right(value: Config) -> bool:
        _check_entries(value, form, "the manifest")
        return True

    return is_right


_ENTRIES: dict[str, _Is] = {
    "teacher": _fits(
        {
            "name": _is_text,
            "fingerprint": _is_text,
            "dtype_policies": lambda value: isinstance(value, list),
        }
    ),
    "layers": _is_list(_is_text),
    "pooled": _is_list(_is_text),
    "dtype": lambda value: value is None or _is_text(value),
    "data": _fits(
        {"samples": _is_count, "inputs": lambda value: True, "digest": _is_text}
    ),
    "finished_rows": _is_count,
    "rounding": _is_rounding,
    "features": lambda value: isinstance(value, dict),
}
_FILE: dict[str, _Is] = {
    "file": _is_file_name,
    "shape": _is_shape,
    "dtype": _is_dtype,
    "header_bytes": _is_count,
    "checksums": _is_list(_is_count),
}
_INPUT: dict[str, _Is] = {"shape": _is_shape, "dtype": _is_text}
