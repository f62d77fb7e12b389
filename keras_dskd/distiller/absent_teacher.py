"""Files without the teacher: what they record about it, and how they load."""

import contextlib
import contextvars
from collections.abc import Iterator

import keras

from keras_dskd.features.identity import fingerprint
from keras_dskd.features.layer_graph import layer_ids, layer_paths
from keras_dskd.internal.types import Config

_given_teacher = contextvars.ContextVar("given_teacher", default=None)


def absent_teacher_config(teacher: keras.Model) -> Config:
    """The config that stands for a teacher: its name and a hash of its weights."""
    return {"left_out": teacher.name, "fingerprint": fingerprint(teacher)}


@contextlib.contextmanager
def loading_with(teacher: keras.Model | None) -> Iterator[None]:
    """A context in which a file without its teacher loads with this teacher."""
    token = _given_teacher.set(teacher)
    try:
        yield
    finally:
        _given_teacher.reset(token)


def teacher_from_config(config: Config) -> tuple[keras.Model, bool]:
    """The teacher of a config, and whether the file lacks it: `(model, is_absent)`.

    Raises:
        ValueError: If the file lacks the teacher and `loading_with` gives no teacher or
            a different one, or if the file has a teacher and `loading_with` gives one.
    """
    given = _given_teacher.get()
    name = config.get("left_out") if "class_name" not in config else None
    if name is None:
        if given is not None:
            raise ValueError(
                "The file includes its teacher. Load it without `teacher`. To continue "
                "with another teacher, make a distiller with it and use `load_weights`."
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
            f"with, {name!r}: their weights differ. To continue with another teacher, "
            "make a distiller with it and use `load_weights`."
        )
    return given, True


def check_nothing_shared(teacher: keras.Model, student: keras.Model) -> None:
    """Raises `ValueError` if teacher and student share a layer.

    Keras saves the weights of a shared layer once, but loads two separate layers.
    """
    of_teacher = layer_ids(teacher)
    shared = sorted(
        "/".join(path)
        for path, layer in layer_paths(student)
        if id(layer) in of_teacher
    )
    if shared:
        raise ValueError(
            "A distiller whose teacher and student share layers cannot be saved as a "
            f"whole. Shared: {shared}. Save `distiller.student` and "
            "`distiller.teacher` separately, or the weights with `save_weights`."
        )
