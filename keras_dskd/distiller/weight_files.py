"""Keras's `.keras` and `.weights.h5` files of a distiller."""

import os
import zipfile
from collections.abc import Iterator
from typing import Any

import h5py  # Keras's own way to store weights.

from keras_dskd.internal.types import Config

_WEIGHTS = "model.weights.h5"  # In a `.keras` file.


def let_student_load(filepath: str) -> None:
    """Lets the plain student load a distiller's file.

    Links from the file's root to the student's weights take no space.
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
                del file[name]  # Empty: the distiller itself has no variables.
            if name not in file:
                file[name] = file["student"][name]


def holds_teacher(filepath: object) -> bool:
    """Whether a file contains the teacher's weights.

    `True` for a file that cannot be inspected, such as one at a remote path.
    """
    path = os.fspath(filepath) if isinstance(filepath, (str, os.PathLike)) else ""
    if path.endswith(".weights.h5") and os.path.isfile(path):
        with h5py.File(path) as file:
            return "teacher" in file or "student" not in file
    if path.endswith(".keras") and os.path.isfile(path):
        with zipfile.ZipFile(path) as archive, archive.open(_WEIGHTS) as weights:
            with h5py.File(weights) as file:
                return "teacher" in file or "student" not in file
    return True


#: Layers that load code, which Keras refuses in safe mode.
_LOAD_CODE = ("TFSMLayer", "TorchModuleWrapper")


def check_no_lambda(config: Config) -> None:
    """Raises `ValueError` if a config cannot be loaded in Keras's safe mode."""
    foreign = list(_paths_of(config, _LOAD_CODE, ()))
    if foreign:
        raise ValueError(
            f"A file with a layer of {' or '.join(_LOAD_CODE)} cannot be loaded safely "
            f"(`safe_mode=True`). Found in: {foreign}. If it is in the teacher, "
            "include_teacher=False leaves it out. `save_weights` saves no code."
        )
    found = list(_paths_of(config, ("__lambda__",), ()))
    if found:
        raise ValueError(
            "A file with a lambda cannot be loaded safely (`safe_mode=True`). Found "
            f"in: {found}. Replace it by a function with the decorator "
            "`keras.saving.register_keras_serializable`. If it is in the teacher, "
            "include_teacher=False leaves it out. `save_weights` saves no code."
        )


def _paths_of(
    config: Any, classes: tuple[str, ...], path: tuple[str, ...]
) -> Iterator[str]:
    """Where a config holds objects of these classes."""
    if isinstance(config, dict):
        if config.get("class_name") in classes:
            yield "/".join(path)
            return
        inner = config.get("config")
        name = inner.get("name") if isinstance(inner, dict) else None
        for key, value in config.items():
            step = name if key == "config" and name else key
            step = () if step in ("config", "layers") else (str(step),)
            yield from _paths_of(value, classes, (*path, *step))
    elif isinstance(config, (list, tuple)):
        for value in config:
            yield from _paths_of(value, classes, path)
