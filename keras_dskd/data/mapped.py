"""Send memory-mapped arrays to worker processes by their location on disk."""

import dataclasses
import mmap
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class MemmapLocation:
    """Where an array is on disk: the arguments of `numpy.memmap`."""

    filename: str
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]


def to_location(array: Any) -> Any:
    """The `MemmapLocation` of a memory-mapped array; any other array unchanged."""
    if not isinstance(array, np.memmap) or not array.flags.c_contiguous:
        return array
    whole = array
    while isinstance(whole.base, np.memmap):
        whole = whole.base
    # NumPy also calls some arrays in memory `memmap`: rows picked by indices, and
    # arrays of mode "c", which may differ from the file.
    is_in_file = isinstance(whole.base, mmap.mmap) and whole.mode != "c"
    if not is_in_file or whole.filename is None:
        return array
    offset = whole.offset + array.ctypes.data - whole.ctypes.data
    return MemmapLocation(str(whole.filename), array.dtype, offset, array.shape)


def from_location(location: Any) -> Any:
    """The array that `to_location` received; read-only if it is on disk."""
    if not isinstance(location, MemmapLocation):
        return location
    return np.memmap(
        location.filename, location.dtype, "r", location.offset, location.shape
    )
