"""Locks between processes: a file that is held as long as something is written."""

import os
from typing import TextIO

try:
    import fcntl
except ImportError:  # Windows: two processes that write at once are not noticed.
    fcntl = None  # type: ignore[assignment]  # It stands for a module.


def hold(filepath: str) -> TextIO:
    """Makes a file and holds its lock until it is closed, or the process ends.

    Returns:
        The open file.

    Raises:
        BlockingIOError: If another process holds it.
        OSError: If the file cannot be made, or files there cannot be locked.
    """
    while True:
        file = open(filepath, "w")
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who held it before may have removed it after it was opened here: then a
            # third one can make, and hold, another file of this name.
            if _is_at(file, filepath):
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _is_at(file: TextIO, filepath: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(filepath))
    except FileNotFoundError:
        return False
