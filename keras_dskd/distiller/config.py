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
