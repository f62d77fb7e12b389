"""Matching rows of teacher and student."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_dskd import ops
from keras_dskd.internal import replicas
from keras_dskd.internal.types import RowsKind, Tensor
from keras_dskd.ops.grids import channels_last, on_one_grid, position_mask
from keras_dskd.ops.sharing import detached


def gather_global_batch(*tensors: Tensor | None) -> Sequence[Any]:
    """Concatenate each tensor's rows across the replicas of this step.

    Args:
        *tensors: Tensors `(n, ...)`, or `None`.

    Returns:
        One tensor, or `None`, for each argument. On a single device, the arguments.
    """
    current = replicas.current()
    if current is None:
        return tensors
    return [
        None if tensor is None else current.gather(keras.ops.convert_to_tensor(tensor))
        for tensor in tensors
    ]


def paired_rows(
    teacher_feature: Tensor,
    student_feature: Tensor,
    rows: RowsKind = "pooled",
    teacher_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Convert both features to matching rows, with the teacher's detached.

    Args:
        teacher_feature: Tensor `(n, c)` or `(n, ..., c)`.
        student_feature: Tensor of the same samples.
        rows: See `keras_dskd.ops.rows`. With `"positions"`, both features are first
            brought to one grid; see `on_one_grid`.
        teacher_mask: Bool tensor `(n,)`, or `None`.

    Returns:
        Tensors `(rows, c_teacher)` and `(rows, c_student)`, and the mask of these rows:
        a bool tensor `(rows,)`, or `None`.
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
            position_mask(teacher_mask, student_feature),
        )
    return (
        ops.rows(teacher_feature, rows),
        ops.rows(student_feature, rows),
        teacher_mask,
    )
