"""Variables of projectors and layers inside losses, made before the first step."""

from typing import Any

import keras

from keras_dskd.data import pairs
from keras_dskd.distiller.loss_values import loss_values
from keras_dskd.features.feature_model import ShapesOnly
from keras_dskd.internal.types import Nested, Tensor


def build_auxiliary_layers(
    distiller: Any,
    teacher: Nested,
    student: Nested,
    teacher_features: Nested = None,
) -> None:
    """Builds projectors and layers inside losses, from shapes alone.

    Args:
        distiller: A `Distiller`.
        teacher: The teacher's input: a batch, or symbolic. `None` with
            `teacher_features`.
        student: The student's input.
        teacher_features: Cached features of the teacher, or `None`.
    """
    # Labels are not known here.
    terms = [
        term
        for term in distiller.loss_terms
        if term.layers or "labels" not in term.arguments
    ]

    def values(x: Nested) -> list[Tensor]:
        forward = distiller.run_models(pairs.Pair(*x), training=False)
        return loss_values(
            terms,
            forward.teacher,
            forward.student,
            teacher_step_masks=forward.teacher_step_masks,
            student_step_masks=forward.student_step_masks,
        )

    shapes = keras.tree.map_structure(
        lambda array: (
            None
            if array is None
            else keras.KerasTensor(
                array.shape, keras.backend.standardize_dtype(array.dtype)
            )
        ),
        [teacher, student, teacher_features],
    )
    ShapesOnly(values).compute_output_spec(shapes)
