"""Files of a distiller: complete or not at all, and of use to the plain student."""

import contextlib
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from typing import Any, TextIO

import h5py  # Keras's own way to store weights.

from keras_dskd import locks
from keras_dskd.types import Config, FilePath

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


def let_student_load(filepath: str) -> None:
    """Lets the plain student read a distiller's file: its parts are at the root too.

    They are links within the file, which take no space.
    """
    if filepath.endswith(".weights.h5"):
        _link_student(filepath)
        return
    folder = os.path.dirname(filepath)
    linked = os.path.join(folder, "linked.zip")
    with zipfile.ZipFile(filepath) as archive, zipfile.ZipFile(linked, "w") as copy:
        weights = archive.extract(_WEIGHTS, folder)
        _link_student(weights)
        for item in archive.infolist():
            if item.filename == _WEIGHTS:
                copy.write(weights, _WEIGHTS)
            else:
                copy.writestr(item, archive.read(item))
    os.replace(linked, filepath)


def _link_student(filepath: str) -> None:
    with h5py.File(filepath, "r+") as file:
        for name in file["student"]:
            if name == "vars" and name in file:
                del file[name]  # The distiller itself has no variables.
            if name not in file:
                file[name] = file["student"][name]


def holds_teacher(filepath: object) -> bool:
    """Whether a file surely lacks no teacher: one that `save` wrote without it does."""
    path = os.fspath(filepath) if isinstance(filepath, (str, os.PathLike)) else ""
    if path.endswith(".weights.h5") and os.path.isfile(path):
        with h5py.File(path) as file:
            return "teacher" in file or "student" not in file
    if path.endswith(".keras") and os.path.isfile(path):
        with zipfile.ZipFile(path) as archive, archive.open(_WEIGHTS) as weights:
            with h5py.File(weights) as file:
                return "teacher" in file or "student" not in file
    return True


def check_no_lambda(config: Config) -> None:
    """Raises `ValueError` where a config could not be loaded in Keras's safe mode."""
    found = list(_lambdas(config, ()))
    if found:
        raise ValueError(
            "A file with a lambda cannot be loaded safely (`safe_mode=True`). Found "
            f"in: {found}. Write a function with the decorator "
            "`keras.saving.register_keras_serializable` in its place. (A teacher's is "
            "left out with include_teacher=False, and `save_weights` needs no code.)"
        )


def _lambdas(config: Any, path: tuple[str, ...]) -> Iterator[str]:
    if isinstance(config, dict):
        if config.get("class_name") == "__lambda__":
            yield "/".join(path)
            return
        inner = config.get("config")
        name = inner.get("name") if isinstance(inner, dict) else None
        for key, value in config.items():
            step = name if key == "config" and name else key
            step = () if step in ("config", "layers") else (str(step),)
            yield from _lambdas(value, (*path, *step))
    elif isinstance(config, (list, tuple)):
        for value in config:
            yield from _lambdas(value, path)
