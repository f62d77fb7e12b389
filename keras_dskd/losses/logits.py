"""Logits from a model's outputs, and a check that a model returns them."""

import keras

from keras_dskd.features.output_kind import output_activations
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


def check_gives_logits(
    loss: keras.distillation.DistillationLoss,
    teacher: keras.Model,
    student: keras.Model,
) -> None:
    """Raise `ValueError` if a model's last layer applies a softmax or a sigmoid.

    A softmax is accepted if the loss has no `..._from_logits` for the model, or it is
    false.

    Args:
        loss: A loss with `teacher_layer_name` and `student_layer_name`.
        teacher: The `keras.Model`.
        student: The `keras.Model`.
    """
    name = type(loss).__name__
    for role, model in (("teacher", teacher), ("student", student)):
        activations = output_activations(model, getattr(loss, f"{role}_layer_name"))
        from_logits = getattr(loss, f"{role}_from_logits", False)
        if "softmax" in activations and from_logits:
            raise ValueError(
                f"{name} compares logits, and the {role} {model.name!r} ends in a "
                f"softmax. Use {name}({role}_from_logits=False)."
            )
        if "sigmoid" in activations:
            raise ValueError(
                f"{name} compares distributions over classes that exclude one another, "
                f"and the {role} {model.name!r} ends in a sigmoid. Use "
                f"BinarySoftTargets({role}_from_logits=False)."
            )


def check_gives_binary_logits(
    loss: keras.distillation.DistillationLoss,
    teacher: keras.Model,
    student: keras.Model,
) -> None:
    """Raise `ValueError` if a model ends in a softmax, or in a sigmoid undeclared.

    Args:
        loss: A loss with `teacher_layer_name`, `student_layer_name`,
            `teacher_from_logits` and `student_from_logits`.
        teacher: The `keras.Model`.
        student: The `keras.Model`.
    """
    name = type(loss).__name__
    for role, model in (("teacher", teacher), ("student", student)):
        activations = output_activations(model, getattr(loss, f"{role}_layer_name"))
        if "softmax" in activations:
            raise ValueError(
                f"{name} compares labels that do not exclude one another, and the "
                f"{role} {model.name!r} ends in a softmax. Use "
                f"SoftTargets({role}_from_logits=False)."
            )
        if "sigmoid" in activations and getattr(loss, f"{role}_from_logits"):
            raise ValueError(
                f"{name} compares logits, and the {role} {model.name!r} ends in a "
                f"sigmoid. Use {name}({role}_from_logits=False)."
            )
