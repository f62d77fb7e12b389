"""Files of a distiller: complete or not at all, with or without its teacher."""

import collections.abc
import contextlib
import contextvars
import hashlib
import os
import shutil
import zipfile

import h5py  # Keras's own way to store weights.
import keras
import numpy as np
from keras import ops

_WEIGHTS = "model.weights.h5"  # In a `.keras` file.

_teacher_at_hand = contextvars.ContextVar("teacher_at_hand", default=None)


class Parts(collections.abc.Sequence):
    """A model's layers, which Keras does not name by their class and number in files.

    It does so for whatever it finds in a list, and would mistake the student for the
    teacher where a file leaves the teacher out. Parts are found as attributes.
    """

    def __init__(self, layers):
        self._layers = tuple(layers)

    def __getitem__(self, index):
        return self._layers[index]

    def __len__(self):
        return len(self._layers)

    def __repr__(self):
        return repr(list(self._layers))


class SeedStates(keras.layers.Layer):
    """Stores the state of random layers, such as dropout, which Keras does not.

    Args:
        seeds: Function of no arguments that returns the variables.
    """

    def __init__(self, seeds):
        super().__init__(name="seeds", trainable=False)
        self._seeds = seeds
        self.built = True

    def save_own_variables(self, store):
        for index, seed in enumerate(self._seeds()):
            store[str(index)] = seed

    def load_own_variables(self, store):
        seeds = self._seeds()
        if len(store.keys()) != len(seeds):
            raise ValueError(
                f"Expected the states of {len(seeds)} random layers. Received: "
                f"{len(store.keys())}"
            )
        for index, seed in enumerate(seeds):
            seed.assign(store[str(index)])


@contextlib.contextmanager
def replacing(filepath):
    """A path to write to, which becomes `filepath` once it is complete.

    Whatever stops the writing, even a kill, leaves an older file as it was.
    """
    filepath = os.path.realpath(filepath)
    folder, name = os.path.split(filepath)
    work = os.path.join(folder, f".partial-{name}")
    shutil.rmtree(work, ignore_errors=True)  # Of a process that was killed.
    os.makedirs(work)
    try:
        written = os.path.join(work, name)
        yield written
        with open(written, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(written, filepath)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def is_replaceable(filepath, overwrite, endings):
    """Whether `replacing` may write the file: one file, here, nobody to be asked."""
    if not isinstance(filepath, (str, os.PathLike)):
        return False
    path = os.fspath(filepath)
    return (
        "://" not in path
        and path.endswith(endings)
        and (overwrite or not os.path.exists(path))
    )


def let_student_load(filepath):
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


def _link_student(filepath):
    with h5py.File(filepath, "r+") as file:
        for name in file["student"]:
            if name == "vars" and name in file:
                del file[name]  # The distiller itself has no variables.
            if name not in file:
                file[name] = file["student"][name]


def holds_teacher(filepath):
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


def fingerprint(model):
    """A text that is another one for other weights: SHA-256 of shapes and numbers."""
    digest = hashlib.sha256()
    for weight in model.weights:
        array = np.asarray(ops.convert_to_numpy(ops.cast(weight, "float32")))
        digest.update(str(array.shape).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def left_out(teacher):
    """What a config holds in the place of a teacher."""
    return {"left_out": teacher.name, "fingerprint": fingerprint(teacher)}


@contextlib.contextmanager
def loading_with(teacher):
    """A context in which distillers without their teachers are loaded with this one."""
    token = _teacher_at_hand.set(teacher)
    try:
        yield
    finally:
        _teacher_at_hand.reset(token)


def teacher_of(config):
    """The teacher of a config: `(model, is_left_out)`.

    Raises:
        ValueError: If there is none, one too many, or another one.
    """
    given = _teacher_at_hand.get()
    name = config.get("left_out") if "class_name" not in config else None
    if name is None:
        if given is not None:
            raise ValueError(
                "The file holds its own teacher. Load it without `teacher`; to go on "
                "with another one, make a distiller with it and use `load_weights`."
            )
        return keras.saving.deserialize_keras_object(config), False
    if given is None:
        raise ValueError(
            f"The distiller was saved without its teacher {name!r}. Load it with "
            "keras_dskd.Distiller.load(filepath, teacher=...)."
        )
    if fingerprint(given) != config["fingerprint"]:
        raise ValueError(
            f"The teacher {given.name!r} is not the one that the distiller was saved "
            f"with, {name!r}: their weights differ. To go on with another teacher, "
            "make a distiller with it and use `load_weights`."
        )
    return given, True


def check_no_lambda(config):
    """Raises `ValueError` where a config could not be loaded in Keras's safe mode."""
    found = list(_lambdas(config, ()))
    if found:
        raise ValueError(
            "A file with a lambda cannot be loaded safely (`safe_mode=True`). Found "
            f"in: {found}. Write a function with the decorator "
            "`keras.saving.register_keras_serializable` in its place. (A teacher's is "
            "left out with include_teacher=False, and `save_weights` needs no code.)"
        )


def _lambdas(config, path):
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
