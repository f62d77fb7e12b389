"""Logits from a model's outputs."""

import keras

from keras_dskd.internal.types import Tensor


def as_logits(outputs: Tensor, from_logits: bool) -> Tensor:
    """Convert outputs to logits: the logarithm, if they are probabilities."""
    if from_logits:
        return outputs
    probabilities = keras.ops.cast(outputs, "float32")
    return keras.ops.log(keras.ops.maximum(probabilities, 1e-30))


def as_binary_logits(outputs: Tensor, from_logits: bool) -> Tensor:
    """Convert outputs to logits: `log(p / (1 - p))`, if they are probabilities.

    Probabilities are clipped to [2⁻²³, 1 - 2⁻²³], so that 0 and 1 are finite.
    """
    if from_logits:
        return outputs
    probabilities = keras.ops.cast(outputs, "float32")
    probabilities = keras.ops.clip(probabilities, 2**-23, 1 - 2**-23)
    return keras.ops.log(probabilities) - keras.ops.log1p(-probabilities)
