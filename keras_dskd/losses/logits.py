"""What losses on logits have in common."""

import keras

from keras_dskd.features.choosing import output_activations
from keras_dskd.internal.types import Tensor


def as_logits(outputs: Tensor, are_logits: bool) -> Tensor:
    """Logits, or where the outputs are probabilities, their logarithm in float32."""
    if are_logits:
        return outputs
    probabilities = keras.ops.cast(outputs, "float32")
    return keras.ops.log(keras.ops.maximum(probabilities, 1e-30))


def check_gives_logits(
    loss: keras.distillation.DistillationLoss,
    teacher: keras.Model,
    student: keras.Model,
) -> None:
    """Raises `ValueError` where a model's last layer shows that it gives no logits.

    Args:
        loss: Has `teacher_layer_name` and `teacher_from_logits`, and the same of the
            student.
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
                f"{model.name!r} ends in a sigmoid. Give the model one logit a class "
                "and no activation."
            )
