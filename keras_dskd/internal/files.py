"""Files of a distiller: complete or not at all, and of use to the plain student."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import TextIO

from keras_dskd.internal import locks
from keras_dskd.internal.types import FilePath

_LOCK = ".lock"  # Held by the process that writes.
_WEIGHTS = "model.weights.h5"  # In a `.keras` file.


@contextlib.contextmanager
def replacing(filepath: FilePath) -> Iterator[str]:
    """A path to write to, which becomes `filepath` once it is complete.

    Whatever stops the writing, even a kill, leaves an older file as it was. Of several
    processes that write one file, each writes its own, and the last one stays.
    """
    filepath = os.path.realpath(filepath)
    folder, name = os.path.split(filepath)
    os.makedirs(folder, exist_ok=True)
    _clear_left(folder, name)
    work, lock = _work_folder(folder, name)
    try:
        written = os.path.join(work, name)
        yield written
        with open(written, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(written, filepath)
    finally:
        if lock is not None:
            lock.close()
        shutil.rmtree(work, ignore_errors=True)


def is_partial(entry: str, name: str) -> bool:
    """Whether an entry of a folder is where `replacing` writes a file of that name."""
    return entry.startswith(f".partial-{name}")


def _work_folder(folder: str, name: str) -> tuple[str, TextIO | None]:
    """A new folder, and its lock: `None` where files cannot be locked."""
    while True:
        work = tempfile.mkdtemp(prefix=f".partial-{name}-", dir=folder)
        try:
            return work, locks.hold(os.path.join(work, _LOCK))
        except (FileNotFoundError, BlockingIOError):
            pass  # Another process took it for one that was left.
        except OSError:
            return work, None


def _clear_left(folder: str, name: str) -> None:
    """Clears away what processes that were killed have half written."""
    for entry in os.listdir(folder):
        if is_partial(entry, name):
            work = os.path.join(folder, entry)
            with contextlib.suppress(OSError):  # Its process goes on; or it is gone.
                with locks.hold(os.path.join(work, _LOCK)):
                    shutil.rmtree(work, ignore_errors=True)
                os.rmdir(work)  # Network drives keep what is open.


def is_replaceable(filepath: object, overwrite: bool, endings: str) -> bool:
    """Whether `replacing` may write the file: one file, here, nobody to be asked."""
    if not isinstance(filepath, (str, os.PathLike)):
        return False
    path = os.fspath(filepath)
    return (
        "://" not in path
        and path.endswith(endings)
        and (overwrite or not os.path.exists(path))
    )
