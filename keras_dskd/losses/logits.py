"""Logits from a model's outputs, and a check that a model returns them."""

import keras

from keras_dskd.features.choosing import output_activations
from keras_dskd.internal.types import Tensor


def as_logits(outputs: Tensor, from_logits: bool) -> Tensor:
    """Convert outputs to logits: the logarithm, if they are probabilities."""
    if from_logits:
        return outputs
    probabilities = keras.ops.cast(outputs, "float32")
    return keras.ops.log(keras.ops.maximum(probabilities, 1e-30))


def check_gives_logits(
    loss: keras.distillation.DistillationLoss,
    teacher: keras.Model,
    student: keras.Model,
) -> None:
    """Raise `ValueError` if a model's last layer applies a softmax or a sigmoid.

    A model is skipped if its `..._from_logits` is false.

    Args:
        loss: A loss with `teacher_layer_name`, `student_layer_name`,
            `teacher_from_logits` and `student_from_logits`.
        teacher: The `keras.Model`.
        student: The `keras.Model`.
    """
    name = type(loss).__name__
    for role, model in (("teacher", teacher), ("student", student)):
        if not getattr(loss, f"{role}_from_logits"):
            continue
        activations = output_activations(model, getattr(loss, f"{role}_layer_name"))
        if "softmax" in activations:
            raise ValueError(
                f"{name} compares logits, and the {role} {model.name!r} ends in a "
                f"softmax. Use {name}({role}_from_logits=False)."
            )
        if "sigmoid" in activations:
            raise ValueError(
                f"{name} compares distributions over classes, and the {role} "
                f"{model.name!r} ends in a sigmoid. Give the model one logit per class "
                "and no activation."
            )
