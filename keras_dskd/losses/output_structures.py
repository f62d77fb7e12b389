"""Losses of models with several outputs: one term per output, summed."""

from collections.abc import Callable

import keras

from keras_dskd.internal.types import Nested, Tensor


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


def sum_over_outputs(term: Callable[..., Tensor], *structures: Nested) -> Tensor:
    """Sum of `term(teacher, student)` over the outputs of two models.

    Args:
        term: A function of one output of each structure, which returns a scalar.
        *structures: The outputs of both models: tensors, or a list, tuple or dict of
            tensors.

    Returns:
        Scalar.
    """
    return sum(keras.tree.flatten(keras.tree.map_structure(term, *structures)))


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
