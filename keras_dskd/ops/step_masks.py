"""Masks of steps: which positions of a feature are real and which are padding.

A step mask is a bool tensor `(n, steps)` that is true for real steps, as Keras's layers
pass it on. Its axes are the first axes of the feature: it may be `(n,)` for a feature
without positions, or `(n, frames)` for frames with positions of their own.
"""

from keras import ops

from keras_dskd.internal.types import Replicas, RowsKind, Tensor
from keras_dskd.ops.checks import as_floats, is_same_shape
from keras_dskd.ops.samples import count_rows, keep_rows


def fitting_mask(feature: Tensor, mask: Tensor | None) -> Tensor | None:
    """The mask as a bool tensor, or `None` if the feature has no axis that it masks.

    A layer that reduces the steps to one vector, and still passes the mask on, gives
    such a feature: `(n, c)` with a mask `(n, steps)`.

    Args:
        feature: Tensor `(n, ..., c)`.
        mask: Bool tensor `(n, ...)`, or `None`.

    Raises:
        ValueError: If lengths differ.
    """
    if mask is None or len(mask.shape) >= len(feature.shape):
        return None
    if not is_same_shape(mask.shape, feature.shape[: len(mask.shape)]):
        raise ValueError(
            "A Keras mask must have the first axes of its feature. Received: a mask of "
            f"shape {tuple(mask.shape)} for a feature of shape {tuple(feature.shape)}. "
            "A layer that changes the number of steps must return the new mask from "
            "its `compute_mask`, or None."
        )
    return ops.cast(mask, "bool")


def has_step(mask: Tensor | None) -> Tensor | None:
    """Whether each sample has at least one real step: a bool tensor `(n,)`."""
    if mask is None or len(mask.shape) == 1:
        return mask
    return ops.any(ops.cast(mask, "bool"), axis=tuple(range(1, len(mask.shape))))


def over_positions(mask: Tensor, feature: Tensor) -> Tensor:
    """Repeat a mask for each position of a channels-last feature `(n, ..., c)`.

    Returns:
        Bool tensor `(n, ...)`: the shape of the feature without its last axis.
    """
    positions = ops.ones_like(feature[..., 0], dtype="bool")
    return ops.logical_and(positions, _with_axes(mask, len(positions.shape)))


def all_of(*masks: Tensor | None) -> Tensor | None:
    """True where every mask is true. Their first axes match; `None` masks nothing."""
    given = [ops.cast(mask, "bool") for mask in masks if mask is not None]
    if not given:
        return None
    rank = max(len(mask.shape) for mask in given)
    result = None
    for mask in given:
        mask = _with_axes(mask, rank)
        result = mask if result is None else ops.logical_and(result, mask)
    return result


def row_mask(
    feature: Tensor, mask: Tensor | None, rows: RowsKind = "pooled"
) -> Tensor | None:
    """Which rows of `as_rows(feature, rows)` count: a bool tensor `(rows,)`, or `None`.

    With `"positions"` these are the real steps, otherwise the samples that have one.
    The feature is channels-last.
    """
    mask = fitting_mask(feature, mask)
    if mask is None or rows != "positions" or len(feature.shape) < 3:
        return has_step(mask)
    return ops.reshape(over_positions(mask, feature), (-1,))


def step_weight(
    sample_weight: Tensor | None,
    mask: Tensor | None,
    replicas: Replicas | None = None,
) -> Tensor | None:
    """Weights for which `weighted_mean` is the mean over the steps that the mask keeps.

    Formula: with `m` the mask, and `N` its number of values,

    ```
    w_i m_it N / Σ m
    ```

    as Keras's losses weight the values of a masked prediction. If no step is left, all
    weights are 0.

    Args:
        sample_weight: Tensor `(n,)`, or of higher rank, or `None` for 1.
        mask: Bool tensor `(n,)` or of higher rank. `None` returns `sample_weight`.
        replicas: Collective operations, if other replicas hold further samples.

    Returns:
        Tensor, float32, of the higher rank of the two.
    """
    if mask is None:
        return sample_weight
    kept = ops.cast(mask, "float32")
    steps = 1.0
    for axis in range(1, len(kept.shape)):
        steps = steps * ops.cast(ops.shape(kept)[axis], "float32")
    total = steps * count_rows(kept, replicas=replicas)
    valid = count_rows(kept, ops.reshape(kept, (-1,)), replicas)
    weight = kept * (total / ops.maximum(valid, 1.0))
    if sample_weight is None:
        return weight
    sample_weight = as_floats(sample_weight, "sample_weight")
    rank = max(len(sample_weight.shape), len(weight.shape))
    return _with_axes(sample_weight, rank) * _with_axes(weight, rank)


def masked_outputs(
    teacher: Tensor,
    student: Tensor,
    sample_weight: Tensor | None,
    teacher_step_mask: Tensor | None,
    student_step_mask: Tensor | None,
    replicas: Replicas | None = None,
    axis: int = -1,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Outputs to compare position by position, and the weights of the positions.

    Args:
        teacher: Tensor `(n, ..., c)`.
        student: Tensor with the same positions.
        sample_weight: Tensor `(n,)`, or of higher rank, or `None`.
        teacher_step_mask: Bool tensor `(n, steps)`, true for real steps, or `None`.
        student_step_mask: The same for the student.
        replicas: See `step_weight`.
        axis: Axis of the channels.

    Returns:
        `(teacher, student, weight)`: the outputs, 0 at steps that are padding on either
        side, and the weights of `step_weight`.
    """
    if teacher_step_mask is None and student_step_mask is None:
        return teacher, student, sample_weight
    sides = [
        ops.moveaxis(ops.convert_to_tensor(side), axis, -1)
        for side in (teacher, student)
    ]
    masks = map(fitting_mask, sides, (teacher_step_mask, student_step_mask))
    mask = all_of(*masks)
    teacher, student = (ops.moveaxis(keep_rows(side, mask), -1, axis) for side in sides)
    return teacher, student, step_weight(sample_weight, mask, replicas)


def _with_axes(tensor: Tensor, rank: int) -> Tensor:
    """Append axes of length 1."""
    for _ in range(rank - len(tensor.shape)):
        tensor = ops.expand_dims(tensor, -1)
    return tensor
