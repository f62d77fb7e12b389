"""Rows of teacher and student that belong together."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_dskd import ops
from keras_dskd.internal import replicas
from keras_dskd.internal.types import RowsKind, Tensor
from keras_dskd.ops.grids import channels_last, mask_of_positions, on_one_grid
from keras_dskd.ops.sharing import detached


def whole_batch(*parts: Tensor | None) -> Sequence[Any]:
    """What all replicas of a step hold of each, below one another; see `replicas`.

    Args:
        *parts: Tensors `(n, ...)`, or `None`.

    Returns:
        A list of as many tensors, or `None` where there was.
    """
    of_step = replicas.current()
    if of_step is None:
        return parts
    return [
        part if part is None else of_step.gather(keras.ops.convert_to_tensor(part))
        for part in parts
    ]


def paired_rows(
    teacher_feature: Tensor,
    student_feature: Tensor,
    rows: RowsKind = "pooled",
    teacher_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The rows of both features, the teacher's detached, and a mask of them.

    Args:
        teacher_feature: Tensor `(n, c)` or `(n, ..., c)`.
        student_feature: Tensor of the same samples.
        rows: See `keras_dskd.ops.rows`. With `"positions"` both get the same grid, as
            `on_one_grid` makes it.
        teacher_mask: Bool tensor `(n,)`, or `None`.

    Returns:
        Tensors `(rows, c_teacher)` and `(rows, c_student)`, and a bool tensor
        `(rows,)` or `None`.
    """
    teacher_feature = detached(teacher_feature)
    ranks = len(teacher_feature.shape), len(student_feature.shape)
    if rows == "positions" and ranks != (2, 2):
        teacher_feature, student_feature = on_one_grid(
            channels_last(teacher_feature, "teacher_feature"),
            channels_last(student_feature, "student_feature"),
        )
        return (
            ops.rows(teacher_feature, rows, "channels_last"),
            ops.rows(student_feature, rows, "channels_last"),
            mask_of_positions(teacher_mask, student_feature),
        )
    return (
        ops.rows(teacher_feature, rows),
        ops.rows(student_feature, rows),
        teacher_mask,
    )
