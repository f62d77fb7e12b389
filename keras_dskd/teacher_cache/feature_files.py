"""The files of a teacher cache: `.npy` files that grow by rows, with checksums.

Rows are on disk before the manifest counts them, and the manifest is replaced
atomically. So if writing stops at any moment, the rows that it counts are complete.
"""

import contextlib
import errno
import os
import re
import shutil
import time
import zlib
from collections.abc import Sequence
from io import BytesIO
from typing import IO, Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from keras_dskd.internal.types import Config, Nested
from keras_dskd.teacher_cache.manifest import damaged, rebuild, write_manifest

_BLOCK = 2**24  # Bytes per checksum.
_CHECKPOINT_SECONDS = 5.0  # Work that a kill may cost; `fsync` takes milliseconds.


class _Progress(NamedTuple):
    """What was appended. It becomes part of the manifest at the next checkpoint."""

    rows: int
    checksums: list[list[int]]  # Of each file.
    rounding: dict[str, list[float]]


class CacheWriter:
    """Appends rows to the files of a locked folder, and counts them in its manifest.

    It resumes from the manifest's `finished_rows`. Nothing is written before `open`.
    """

    def __init__(self, path: str, manifest: Config) -> None:
        self.path = path
        self.manifest = manifest
        self.files: list[FeatureFile] = keras.tree.flatten(open_files(path, manifest))
        self._progress = _Progress(manifest["finished_rows"], [], manifest["rounding"])
        self._streams: list[IO[bytes]] = []
        self._opened = contextlib.ExitStack()
        self._saved_at = time.monotonic()

    def open(self) -> None:
        """Opens the files after the finished rows, and drops any other rows.

        Raises:
            OSError: If the disk lacks room for the remaining rows.
            ValueError: If the finished rows are damaged.
        """
        finished = self._progress.rows
        self._check_room()
        if finished:
            for file in self.files:
                file.check(finished)
        else:
            # Before the files: without a manifest the folder would be refused later.
            write_manifest(self.path, self.manifest)
        for file in self.files:
            mode = "r+b" if finished else "wb"
            stream = self._opened.enter_context(open(file.filepath, mode))
            self._streams.append(stream)
            checksums = file.entry["checksums"]
            if finished:
                stream.truncate(file.size(finished))
                stream.seek(0, os.SEEK_END)
            else:
                header = _header(file.entry["shape"], file.entry["dtype"])
                checksums = append_bytes(stream, header, [])
            self._progress.checksums.append(checksums)

    def append(
        self, arrays: list[NDArray[Any]], rounding: dict[str, list[float]]
    ) -> None:
        """Appends rows: one array per file, and the rounding errors of all rows."""
        checksums = []
        for number, array in enumerate(arrays):
            array = np.ascontiguousarray(array, self.files[number].entry["dtype"])
            content = array.reshape(-1).view("uint8").data
            before = self._progress.checksums[number]
            checksums.append(append_bytes(self._streams[number], content, before))
        # One assignment: an interrupt finds these rows in all files or in none.
        rows = self._progress.rows + len(arrays[0])
        self._progress = _Progress(rows, checksums, rounding)
        is_finished = rows == self.manifest["data"]["samples"]
        if is_finished or time.monotonic() - self._saved_at >= _CHECKPOINT_SECONDS:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Writes all rows to the disk, then counts them as finished."""
        for stream in self._streams:
            stream.flush()
            os.fsync(stream.fileno())
        rows, all_checksums, rounding = self._progress
        for file, checksums in zip(self.files, all_checksums, strict=True):
            file.entry["checksums"] = checksums
        self.manifest.update(rounding=rounding, finished_rows=rows)
        write_manifest(self.path, self.manifest)
        self._saved_at = time.monotonic()

    def close(self) -> None:
        """Counts the appended rows, and closes the files."""
        with self._opened:
            if self._progress.rows != self.manifest["finished_rows"]:
                self.checkpoint()

    @property
    def size(self) -> int:
        """Bytes of all files once they are finished."""
        return sum(file.size(self.manifest["data"]["samples"]) for file in self.files)

    def _check_room(self) -> None:
        needed = self.size - sum(file.size_on_disk() for file in self.files)
        free = shutil.disk_usage(self.path).free
        if needed > free:
            raise OSError(
                errno.ENOSPC,
                f"The teacher cache needs {size_text(needed)} more, and the disk has "
                f'{size_text(free)} free. dtype="float16" takes half the room; losses '
                "that pool their features take less than whole feature maps",
                os.fspath(self.path),
            )


class FeatureFile:
    """One `.npy` file of a cache, described by its entry in the manifest."""

    def __init__(self, path: str, entry: Config) -> None:
        self.filepath = os.path.join(path, entry["file"])
        self.entry = entry
        self.row_bytes = np.dtype(entry["dtype"]).itemsize * int(
            np.prod(entry["shape"][1:], dtype="int64")
        )

    def size(self, rows: int) -> int:
        """Bytes of the file with that many rows."""
        return self.entry["header_bytes"] + rows * self.row_bytes

    def size_on_disk(self) -> int:
        """Bytes of the file as it is; 0 if there is no file."""
        exists = os.path.exists(self.filepath)
        return os.path.getsize(self.filepath) if exists else 0

    def check(self, rows: int, contents: bool = True) -> None:
        """Raises `ValueError` unless the file has that many rows, undamaged."""
        size, expected = self.size_on_disk(), self.size(rows)
        is_whole = rows == self.entry["shape"][0]
        if size < expected or (is_whole and size > expected):
            raise ValueError(
                damaged(self.filepath, f"It has {size} bytes instead of {expected}")
            )
        if not contents:
            return
        if len(self.entry["checksums"]) != -(-expected // _BLOCK):
            raise ValueError(damaged(self.filepath, "It has too few checksums"))
        with open(self.filepath, "rb") as file:
            for start, checksum in zip(
                range(0, expected, _BLOCK), self.entry["checksums"], strict=True
            ):
                if zlib.crc32(file.read(min(_BLOCK, expected - start))) != checksum:
                    raise ValueError(
                        damaged(self.filepath, f"A checksum differs after byte {start}")
                    )

    def mapped(self) -> NDArray[Any]:
        """The array, memory-mapped and read-only."""
        try:
            array = np.load(self.filepath, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            raise ValueError(
                damaged(self.filepath, "Its header cannot be read")
            ) from error
        if (
            list(array.shape) != self.entry["shape"]
            or array.dtype.str != np.dtype(self.entry["dtype"]).str
        ):
            raise ValueError(damaged(self.filepath, "Its header differs"))
        return array


def open_files(path: str, manifest: Config) -> dict[str, Nested]:
    """The `FeatureFile`s of a cache, in the structure of its features."""
    return rebuild(
        {"dict": manifest["features"]}, lambda entry: FeatureFile(path, entry)
    )


def append_bytes(
    stream: IO[bytes], content: bytes | memoryview, checksums: list[int]
) -> list[int]:
    """Writes to the end of a file; returns its checksums, one per block."""
    position, content = stream.tell(), memoryview(content)
    stream.write(content)
    checksums = list(checksums)
    while len(content):
        if position % _BLOCK == 0:
            checksums.append(0)
        part = content[: _BLOCK - position % _BLOCK]
        checksums[-1] = zlib.crc32(part, checksums[-1])
        position += len(part)
        content = content[len(part) :]
    return checksums


def new_entry(
    number: int, name: str, shape: Sequence[int], dtype: str | np.dtype
) -> Config:
    """The manifest's entry of a new file, for an array of all rows.

    The feature's name may be a path, such as `"backbone/conv1"`.
    """
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:60]
    return {
        "file": f"{number:02d}-{slug}.npy",
        "shape": list(shape),
        "dtype": np.dtype(dtype).str,
        "header_bytes": len(_header(shape, dtype)),
        "checksums": [],
    }


def _header(shape: Sequence[int], dtype: str | np.dtype) -> bytes:
    """The first bytes of an `.npy` file."""
    stream = BytesIO()
    np.lib.format.write_array_header_1_0(
        stream,
        {
            "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
            "fortran_order": False,
            "shape": tuple(shape),
        },
    )
    return stream.getvalue()


def size_text(size: float) -> str:
    """Formats a number of bytes, such as "1.2 GB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            break
        size, unit = size / 1000, "TB"
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
