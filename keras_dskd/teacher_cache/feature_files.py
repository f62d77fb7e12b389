"""A teacher cache on disk: `.npy` files that grow by rows, and their manifest.

A folder holds one `.npy` file a feature and `manifest.json`: what was run on what, and
how many rows are finished, with a CRC-32 of each 16 MiB of each file. Rows are on disk
before the manifest counts them, and a manifest takes the place of the older one when
it is complete; so whatever stops the writing, the rows that it counts are there.
"""

import contextlib
import errno
import io
import os
import re
import shutil
import time
import zlib
from collections.abc import Sequence
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from keras_dskd.internal.types import Config
from keras_dskd.teacher_cache.manifest import damaged, leaves, rebuild, write_manifest

# Checksums, and the bytes that they cover.
_State: TypeAlias = tuple[list[int], int]

_BLOCK = 2**24  # Bytes that one checksum covers.
_CHECKPOINT_SECONDS = 5.0  # Work that a kill may cost; `fsync` takes milliseconds.


class CacheWriter:
    """Appends rows to the files of a cache, and counts them in its manifest.

    Nothing is written before `open`.

    Args:
        path: The folder. `locked` is for the caller to hold.
        manifest: The manifest, with `finished_rows` to go on from.
    """

    def __init__(self, path: str, manifest: Config) -> None:
        self.path = path
        self.manifest = manifest
        self.files = rebuild(
            {"dict": manifest["features"]}, lambda entry: FeatureFile(path, entry)
        )
        self._all = leaves(self.files)
        self._done: tuple[int, list[_State], dict[str, Any]] = (
            manifest["finished_rows"],
            [],
            {},
        )
        self._last = time.monotonic()

    def open(self) -> None:
        """Opens the files, to append after the rows that are finished.

        Raises:
            OSError: If the disk has no room for the rows to come.
            ValueError: If the rows that are there are damaged.
        """
        finished = self.manifest["finished_rows"]
        self._check_room()
        if finished:
            for file in self._all:
                file.check(finished)
        else:
            # Before its files: they alone would be a folder of something else.
            write_manifest(self.path, self.manifest)
        for file in self._all:
            file.open(finished)

    def append(self, arrays: list[NDArray[Any]], **more: Any) -> None:
        """Appends rows.

        Args:
            arrays: One for each file, in the order of `leaves`.
            **more: What the manifest says besides, with these rows.
        """
        rows = self._done[0] + len(arrays[0])
        states = [
            file.append(array) for file, array in zip(self._all, arrays, strict=True)
        ]
        # In one step: an interrupt finds the rows in all checksums or in none.
        self._done = rows, states, more
        for file, state in zip(self._all, states, strict=True):
            file.state = state
        is_finished = rows == self.manifest["data"]["samples"]
        if is_finished or time.monotonic() - self._last >= _CHECKPOINT_SECONDS:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Counts the rows so far as finished, once they are on disk."""
        for file in self._all:
            file.flush()
        rows, states, more = self._done
        for file, (checksums, _) in zip(self._all, states, strict=True):
            file.entry["checksums"] = checksums
        self.manifest.update(more, finished_rows=rows)
        write_manifest(self.path, self.manifest)
        self._last = time.monotonic()

    def close(self) -> None:
        """Counts what has been appended, and closes the files."""
        with contextlib.ExitStack() as files:
            for file in self._all:
                files.callback(file.close)
            if self._done[0] != self.manifest["finished_rows"]:
                self.checkpoint()

    @property
    def size(self) -> int:
        """Bytes of all files when they are finished."""
        return sum(file.size(self.manifest["data"]["samples"]) for file in self._all)

    def _check_room(self) -> None:
        needed = self.size - sum(file.size_on_disk() for file in self._all)
        free = shutil.disk_usage(self.path).free
        if needed > free:
            raise OSError(
                errno.ENOSPC,
                f"The teacher cache needs {size_text(needed)} more, and the disk has "
                f'{size_text(free)} free. dtype="float16" takes half; layers that '
                "are pooled in the teacher take less than feature maps",
                os.fspath(self.path),
            )


class FeatureFile:
    """One `.npy` file of a cache.

    Args:
        path: The folder.
        entry: What the manifest says of it: `file`, `shape`, `dtype`, `header_bytes`
            and `checksums`.
    """

    def __init__(self, path: str, entry: Config) -> None:
        if os.path.basename(entry["file"]) != entry["file"]:
            raise ValueError(f"Expected the name of a file. Received: {entry['file']}")
        self.filepath = os.path.join(path, entry["file"])
        self.entry = entry
        self.row_bytes = np.dtype(entry["dtype"]).itemsize * int(
            np.prod(entry["shape"][1:], dtype="int64")
        )
        self.state: _State = [], 0  # Checksums, and the bytes that they cover.
        self._opened = contextlib.ExitStack()

    def size(self, rows: int) -> int:
        """Bytes of the file with that many rows."""
        return self.entry["header_bytes"] + rows * self.row_bytes

    def size_on_disk(self) -> int:
        """Bytes that the file has, 0 where there is none."""
        exists = os.path.exists(self.filepath)
        return os.path.getsize(self.filepath) if exists else 0

    def check(self, rows: int, contents: bool = True) -> None:
        """Raises `ValueError` if the file does not hold that many rows undamaged."""
        size, expected = self.size_on_disk(), self.size(rows)
        is_whole = rows == self.entry["shape"][0]
        if size < expected or (is_whole and size > expected):
            raise ValueError(
                damaged(self.filepath, f"It has {size} bytes and should {expected}")
            )
        if not contents:
            return
        with open(self.filepath, "rb") as file:
            for number, checksum in enumerate(self.entry["checksums"]):
                block = file.read(min(_BLOCK, expected - number * _BLOCK))
                if zlib.crc32(block) != checksum:
                    raise ValueError(
                        damaged(
                            self.filepath,
                            f"A checksum differs after byte {number * _BLOCK}",
                        )
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

    def open(self, rows: int) -> None:
        """Opens the file to append after that many rows, and drops what follows."""
        if rows:
            self._open("r+b")
            self._file.truncate(self.size(rows))
            self._file.seek(0, os.SEEK_END)
            self.state = list(self.entry["checksums"]), self.size(rows)
            return
        self._open("wb")
        self.state = self._append_bytes(
            header(self.entry["shape"], self.entry["dtype"])
        )

    def _open(self, mode: str) -> None:
        self._file: IO[bytes] = self._opened.enter_context(open(self.filepath, mode))

    def append(self, rows: NDArray[Any]) -> _State:
        """Writes rows; returns the `state` with them."""
        rows = np.ascontiguousarray(rows, self.entry["dtype"])
        return self._append_bytes(rows.reshape(-1).view("uint8").data)

    def _append_bytes(self, content: bytes | memoryview) -> _State:
        content = memoryview(content)
        self._file.write(content)
        checksums, position = list(self.state[0]), self.state[1]
        while len(content):
            if position % _BLOCK == 0:
                checksums.append(0)
            part = content[: _BLOCK - position % _BLOCK]
            checksums[-1] = zlib.crc32(part, checksums[-1])
            position += len(part)
            content = content[len(part) :]
        return checksums, position

    def flush(self) -> None:
        """Returns when what was written is on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._opened.close()


def new_entry(
    number: int, name: str, shape: Sequence[int], dtype: str | np.dtype
) -> Config:
    """What a manifest says of a new file.

    Args:
        number: Its number among the files.
        name: The feature's name, which may be a path such as `"backbone/conv1"`.
        shape: The shape of the array, all rows.
        dtype: Its `numpy.dtype`.
    """
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:60]
    return {
        "file": f"{number:02d}-{slug}.npy",
        "shape": list(shape),
        "dtype": np.dtype(dtype).str,
        "header_bytes": len(header(shape, dtype)),
        "checksums": [],
    }


def header(shape: Sequence[int], dtype: str | np.dtype) -> bytes:
    """The first bytes of an `.npy` file."""
    stream = io.BytesIO()
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
    """Bytes as a person reads them."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            break
        size, unit = size / 1000, "TB"
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
