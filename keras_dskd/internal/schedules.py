"""Numbers, or functions of the training step, as plain data."""

import keras

from keras_dskd.internal.types import Config, Temperature, Weight


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


def check_temperature_word(temperature: object) -> None:
    """Raise `ValueError` if a temperature is a word other than `"auto"`."""
    if isinstance(temperature, str) and temperature != "auto":
        raise ValueError(
            '`temperature` must be a number, a schedule of the step, or "auto". '
            f"Received: temperature={temperature!r}"
        )


def serialize_temperature(temperature: Temperature) -> float | str | Config:
    """A temperature as plain data; see `serialize_weight`."""
    if isinstance(temperature, str):
        return temperature
    return serialize_weight(temperature)


def deserialize_weight(config: float | Config) -> Weight:
    """The inverse of `serialize_weight`."""
    if isinstance(config, dict):
        return keras.saving.deserialize_keras_object(config)
    return config
