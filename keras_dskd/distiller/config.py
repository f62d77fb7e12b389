"""A distiller's configuration as plain data."""

from typing import Any

import keras

from keras_dskd.internal.schedules import deserialize_weight, serialize_weight
from keras_dskd.internal.types import Config


def to_config(distiller: Any) -> Config:
    """The serialized arguments of a distiller's constructor, without the teacher."""
    serialize = keras.saving.serialize_keras_object
    return {
        "student": serialize(distiller.student),
        "distillation_losses": [serialize(i) for i in distiller.distillation_losses],
        "distillation_loss_weights": [
            serialize_weight(term.weight) for term in distiller.loss_terms
        ],
        "student_loss_weight": serialize_weight(distiller.student_loss_weight),
        "projectors": {
            name: serialize(projector)
            for name, projector in distiller.projectors.items()
        },
        # Earlier versions load files without it.
        **({"evaluates_teacher": True} if distiller.evaluates_teacher else {}),
    }


_TYPES: dict[str, type | tuple[type, ...]] = {
    "teacher": dict,
    "student": dict,
    "distillation_losses": (list, tuple),
    "distillation_loss_weights": (list, tuple),
    "student_loss_weight": (int, float, dict),
    "projectors": dict,
}


def check_entries(config: Config) -> None:
    """Checks the config of a file, before anything is made of it.

    Raises:
        ValueError: If it lacks an entry, or an entry is of another type.
    """
    config = {"projectors": {}, **config}
    for name, types in _TYPES.items():
        value = config.get(name)
        if not isinstance(value, types):
            raise ValueError(
                f"The config of a distiller lacks {name!r}, or it is of a wrong type: "
                f"{type(value).__name__}. The file is damaged, or was not saved by "
                "`Distiller.save`."
            )


def from_config(config: Config) -> Config:
    """The inverse of `to_config`. Other entries stay as they are."""
    deserialize = keras.saving.deserialize_keras_object
    return {
        **config,
        "student": deserialize(config["student"]),
        "distillation_losses": [deserialize(i) for i in config["distillation_losses"]],
        "student_loss_weight": deserialize_weight(config["student_loss_weight"]),
        "distillation_loss_weights": [
            deserialize_weight(weight) for weight in config["distillation_loss_weights"]
        ],
        "projectors": {
            name: deserialize(projector)
            for name, projector in config.get("projectors", {}).items()
        },
    }
