"""Losses of models with several outputs: one term per output, summed."""

from collections.abc import Callable, Sequence

import keras

from keras_dskd.internal import replicas
from keras_dskd.internal.types import Nested, Tensor
from keras_dskd.ops.step_masks import masked_outputs


def check_same_structure(
    loss: keras.distillation.DistillationLoss,
    teacher_outputs: Nested,
    student_outputs: Nested,
) -> None:
    """Raise `ValueError` unless both outputs have the same structure."""
    try:
        keras.tree.assert_same_structure(teacher_outputs, student_outputs)
    except (TypeError, ValueError) as error:
        counts = [
            len(keras.tree.flatten(outputs))
            for outputs in (teacher_outputs, student_outputs)
        ]
        raise ValueError(
            f"{type(loss).__name__} expects the same structure of outputs from both "
            f"models. Received a mismatch: {counts[0]} from the teacher in a "
            f"{type(teacher_outputs).__name__}, {counts[1]} from the student in a "
            f"{type(student_outputs).__name__}. Name the layers to compare: "
            "teacher_layer_name=..., student_layer_name=..."
        ) from error


def sum_over_outputs(
    term: Callable[..., Tensor],
    structures: Sequence[Nested],
    sample_weight: Tensor | None = None,
    step_masks: Sequence[Nested] = (None, None),
    axis: int = -1,
) -> Tensor:
    """Sum of `term(teacher, student, weight, ...)` over the outputs of two models.

    Args:
        term: A function of one output of each structure, and of the weights of the
            first two, which returns a scalar.
        structures: The outputs of both models, and further arguments of `term`:
            tensors, or a list, tuple or dict of tensors.
        sample_weight: Tensor `(n,)`, or of higher rank, or `None`.
        step_masks: The teacher's and the student's step masks, in the structure of the
            outputs; `None` if all steps are real. Outputs are 0 at padded steps, and so
            are the weights.
        axis: Axis of the outputs that is no position, such as that of classes.

    Returns:
        Scalar.
    """
    teacher, student = structures[:2]
    keras.tree.assert_same_structure(teacher, student)
    count = len(keras.tree.flatten(student))
    flat = [keras.tree.flatten(structure) for structure in structures]
    masks = [
        [None] * count if mask is None else keras.tree.flatten(mask)
        for mask in step_masks
    ]
    total = 0.0
    for *given, teacher_mask, student_mask in zip(*flat, *masks, strict=True):
        teacher, student, weight = masked_outputs(
            given[0],
            given[1],
            sample_weight,
            teacher_mask,
            student_mask,
            replicas.current(),
            axis,
        )
        total = total + term(teacher, student, weight, *given[2:])
    return total


def like(outputs: Nested, labels: Nested) -> Nested:
    """Labels of several outputs, in the structure of the outputs.

    Raises:
        ValueError: If the structures differ, lists and tuples apart.
    """
    if isinstance(labels, (list, tuple)) and isinstance(outputs, (list, tuple)):
        labels = type(outputs)(labels)  # `tf.data` turns lists into tuples.
    try:
        keras.tree.assert_same_structure(outputs, labels)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "Expected labels of the same structure as the outputs. Received labels: "
            f"{type(labels).__name__}, outputs: {type(outputs).__name__} of "
            f"{len(outputs)}. Name one output's layer: teacher_layer_name=..., "
            "student_layer_name=..."
        ) from error
    return labels
