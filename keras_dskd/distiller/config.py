"""A distiller's configuration as plain data."""

from typing import Any

import keras

from keras_dskd.internal.types import Config, Weight


def to_config(distiller: Any) -> Config:
    """The serialized arguments of a distiller's constructor, without the teacher."""
    serialize = keras.saving.serialize_keras_object
    return {
        "student": serialize(distiller.student),
        "distillation_losses": [serialize(i) for i in distiller.distillation_losses],
        "distillation_loss_weights": [
            serialize_weight(term.weight) for term in distiller.loss_terms
        ],
        "student_loss_weight": distiller.student_loss_weight,
        "projectors": {
            name: serialize(projector)
            for name, projector in distiller.projectors.items()
        },
        "evaluates_teacher": distiller.evaluates_teacher,
    }


def from_config(config: Config) -> Config:
    """The inverse of `to_config`. Other entries stay as they are."""
    deserialize = keras.saving.deserialize_keras_object
    return {
        **config,
        "student": deserialize(config["student"]),
        "distillation_losses": [deserialize(i) for i in config["distillation_losses"]],
        "distillation_loss_weights": [
            deserialize_weight(weight) for weight in config["distillation_loss_weights"]
        ],
        "projectors": {
            name: deserialize(projector)
            for name, projector in config.get("projectors", {}).items()
        },
    }


def serialize_weight(weight: Weight) -> float | Config:
    """A weight as plain data.

    Raises:
        ValueError: If it is a lambda, which cannot be loaded.
    """
    if not callable(weight):
        return float(weight)
    if getattr(weight, "__name__", None) == "<lambda>":
        raise ValueError(
            "A lambda as a weight cannot be saved. Use a "
            "`keras.optimizers.schedules.LearningRateSchedule`, or a function with "
            "the decorator `keras.saving.register_keras_serializable`."
        )
    return keras.saving.serialize_keras_object(weight)


def deserialize_weight(config: float | Config) -> Weight:
    """The inverse of `serialize_weight`."""
    if isinstance(config, dict):
        return keras.saving.deserialize_keras_object(config)
    return config
