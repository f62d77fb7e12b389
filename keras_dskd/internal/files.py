"""Write files atomically, and lock files between processes."""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator

import filelock

from keras_dskd.internal.types import FilePath

_PARTIAL = ".partial-"
_LOCK = ".lock"


@contextlib.contextmanager
def replacing(filepath: FilePath) -> Iterator[str]:
    """Yields a path to write to, and moves the file to `filepath` when it is complete.

    If writing stops, even because the process is killed, an older file stays as it was.
    Several processes may write one file at the same time: each writes its own copy, and
    the last one to finish wins.
    """
    filepath = os.path.realpath(filepath)
    folder, name = os.path.split(filepath)
    os.makedirs(folder, exist_ok=True)
    _remove_abandoned(folder, name)
    work = os.path.join(folder, f"{_PARTIAL}{name}-{secrets.token_hex(4)}")
    with contextlib.ExitStack() as stack:
        # Lock before the folder exists: other processes remove folders that nobody has
        # locked, and hold this lock for a moment if they see its file first.
        try:
            stack.enter_context(holding(work + _LOCK, timeout=10))
        except OSError:  # This file system has no locks.
            _remove(work + _LOCK)
        stack.callback(shutil.rmtree, work, ignore_errors=True)
        os.mkdir(work)
        written = os.path.join(work, name)
        yield written
        with open(written, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(written, filepath)


def is_partial(entry: str, name: str) -> bool:
    """Whether `replacing` made this entry of a folder while it wrote file `name`."""
    # Of exactly the names that it chooses: others are the user's.
    ending = re.escape(f"{_PARTIAL}{name}-") + "[0-9a-f]{8}" + f"({re.escape(_LOCK)})?"
    return re.fullmatch(ending, entry) is not None


@contextlib.contextmanager
def holding(filepath: str, timeout: float = 0) -> Iterator[None]:
    """Creates a lock file, and holds its lock until the context or the process ends.

    Raises:
        filelock.Timeout: If another process holds it for longer than `timeout` seconds.
        OSError: If the file cannot be created, is a symbolic link, or the file system
            has no locks. (`Timeout` is an `OSError`, too.)
    """
    # filelock's fallback is a soft lock, which would outlive a killed process.
    with filelock.FileLock(filepath, timeout=timeout, fallback_to_soft=False):
        try:
            yield
        finally:
            # Remove the file while it is locked: a process that waits for the lock
            # notices, and creates a new file. On Windows filelock removes it.
            _remove(filepath)


def _remove_abandoned(folder: str, name: str) -> None:
    """Removes the partial copies of a file that killed processes have left."""
    entries = (entry for entry in os.listdir(folder) if is_partial(entry, name))
    for work in {os.path.join(folder, entry.removesuffix(_LOCK)) for entry in entries}:
        with contextlib.suppress(OSError), holding(work + _LOCK):
            if not os.path.isdir(work) or set(os.listdir(work)) <= {name}:
                shutil.rmtree(work, ignore_errors=True)


def _remove(filepath: str) -> None:
    with contextlib.suppress(OSError):
        os.remove(filepath)


def is_replaceable(filepath: object, overwrite: bool, endings: str) -> bool:
    """Whether `replacing` can write the file: it is local and needs no prompt."""
    if not isinstance(filepath, (str, os.PathLike)):
        return False
    path = os.fspath(filepath)
    return (
        "://" not in path
        and path.endswith(endings)
        and (overwrite or not os.path.exists(path))
    )
