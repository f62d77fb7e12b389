"""Matching rows of teacher and student."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_dskd import ops
from keras_dskd.internal import replicas
from keras_dskd.internal.types import RowsKind, Tensor
from keras_dskd.ops.checks import is_same_shape
from keras_dskd.ops.grids import channels_last, on_one_grid
from keras_dskd.ops.sharing import detached
from keras_dskd.ops.step_masks import all_of, fitting_mask, has_step, row_mask


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
    teacher_step_mask: Tensor | None = None,
    student_step_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Convert both features to matching rows, with the teacher's detached.

    Args:
        teacher_feature: Tensor `(n, c)` or `(n, ..., c)`.
        student_feature: Tensor of the same samples.
        rows: See `keras_dskd.ops.rows`. With `"positions"`, both features are first
            brought to one grid; see `on_one_grid`.
        teacher_mask: Bool tensor `(n,)`, or `None`.
        teacher_step_mask: Bool tensor `(n, steps)`, true for the teacher's real steps,
            or `None`.
        student_step_mask: The same for the student.

    Returns:
        Tensors `(rows, c_teacher)` and `(rows, c_student)`, and the mask of these rows:
        a bool tensor `(rows,)`, or `None`. The mask leaves out samples without a
        teacher and rows without a real step on either side.
    """
    teacher_feature = detached(teacher_feature)
    ranks = len(teacher_feature.shape), len(student_feature.shape)
    if rows == "positions" and ranks != (2, 2):
        teacher_feature, student_feature, kept = on_one_grid(
            channels_last(teacher_feature, "teacher_feature"),
            channels_last(student_feature, "student_feature"),
            teacher_step_mask,
            student_step_mask,
        )
        return (
            ops.rows(teacher_feature, rows, "channels_last"),
            ops.rows(student_feature, rows, "channels_last"),
            row_mask(student_feature, all_of(teacher_mask, kept), rows),
        )
    teacher_step_mask = fitting_mask(teacher_feature, teacher_step_mask)
    student_step_mask = fitting_mask(student_feature, student_step_mask)
    return (
        ops.rows(teacher_feature, rows, step_mask=teacher_step_mask),
        ops.rows(student_feature, rows, step_mask=student_step_mask),
        all_of(teacher_mask, has_step(teacher_step_mask), has_step(student_step_mask)),
    )


def value_mask(
    features: Sequence[Tensor],
    mask: Tensor | None,
    step_masks: Sequence[Tensor | None],
) -> Tensor | None:
    """Which values of flattened rows count, on each side that is given.

    Args:
        features: Tensors `(n, ..., c)` with the same positions and channels.
        mask: Bool tensor `(n,)`: the rows that count, or `None`.
        step_masks: For each feature a bool tensor `(n, steps)`, or `None`.

    Returns:
        Bool tensor `(n, positions * c)`, or `mask` if no step mask fits its feature.
    """
    kept = []
    for feature, given in zip(features, step_masks, strict=True):
        step_mask = fitting_mask(feature, given)
        if step_mask is not None and len(feature.shape) > 2:
            ones = keras.ops.ones_like(feature)
            kept.append(ops.rows(ones, "flattened", step_mask=step_mask) > 0)
    if any(not is_same_shape(each.shape, kept[0].shape) for each in kept):
        return mask  # The formula reports the shapes.
    return all_of(mask, *kept)
