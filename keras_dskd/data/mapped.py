"""Memory-mapped arrays by their place on disk: what another process needs of them."""

import dataclasses
import mmap
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Place:
    """Where on disk an array is; arguments of `numpy.memmap`."""

    filename: str
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]


def place_of(array: Any) -> Any:
    """The `Place` of a memory-mapped array; any other array itself."""
    if not isinstance(array, np.memmap) or not array.flags.c_contiguous:
        return array
    whole = array
    while isinstance(whole.base, np.memmap):
        whole = whole.base
    # A copy in memory is a `memmap` as well, and one of mode "c" may be another array
    # than the file's.
    is_in_file = isinstance(whole.base, mmap.mmap) and whole.mode != "c"
    if not is_in_file or whole.filename is None:
        return array
    offset = whole.offset + array.ctypes.data - whole.ctypes.data
    return Place(str(whole.filename), array.dtype, offset, array.shape)


def from_place(array: Any) -> Any:
    """The array that `place_of` was given, read-only where it is on disk."""
    if not isinstance(array, Place):
        return array
    return np.memmap(array.filename, array.dtype, "r", array.offset, array.shape)
