"""Compare the attention maps of two models."""

from keras import ops

from keras_dskd.internal.types import Replicas, Tensor
from keras_dskd.ops.grids import channels_last, on_one_grid
from keras_dskd.ops.rows import divide_by_largest, normalize
from keras_dskd.ops.samples import keep_rows, weighted_mean
from keras_dskd.ops.step_masks import fitting_mask, has_step, step_weight


def attention_transfer(
    teacher_map: Tensor,
    student_map: Tensor,
    sample_weight: Tensor | None = None,
    teacher_step_mask: Tensor | None = None,
    student_step_mask: Tensor | None = None,
    replicas: Replicas | None = None,
) -> Tensor:
    """Squared distance between the attention maps of two feature maps.

    Formula: with `Q` the mean over channels of the squared feature map, flattened and
    scaled to unit length,

    ```
    mean_b ||Q_t,b - Q_s,b||²
    ```

    The numbers of channels may differ. If the grids differ, the finer attention map is
    averaged over blocks. A feature map of zeros gives an attention map of zeros.
    Nothing is detached here.

    Args:
        teacher_map: Tensor `(n, ..., c_teacher)`.
        student_map: Tensor `(n, ..., c_student)` of the same rank.
        sample_weight: Tensor `(n,)`. See `weighted_mean`.
        teacher_step_mask: Bool tensor `(n, steps)`, true for real steps, or `None`.
        student_step_mask: The same for the student. The attention maps hold only the
            positions that are real on both sides. A sample without any is left out of
            the mean.
        replicas: Collective operations, if other replicas hold further samples.

    Returns:
        Scalar, float32, in [0, 2] with equal sample weights.

    Raises:
        ValueError: If a feature has no positions, one grid is not a multiple of the
            other, or a mask does not fit its feature.

    Source:
        Zagoruyko and Komodakis 2017 (arXiv 1612.03928), equation 2 with p = 2, squared
        as in the authors' code. That code also divides by the number of positions: a
        weight of 1000 there corresponds to 1000 / positions here.
    """
    teacher, student, kept = on_one_grid(
        _attention(teacher_map, "teacher_map", teacher_step_mask),
        _attention(student_map, "student_map", student_step_mask),
        teacher_step_mask,
        student_step_mask,
    )  # (n, ..., 1)
    teacher, student = keep_rows(teacher, kept), keep_rows(student, kept)
    distances = ops.sum(ops.square(_flat(teacher) - _flat(student)), axis=1)
    return weighted_mean(
        distances, step_weight(sample_weight, has_step(kept), replicas)
    )


def _attention(feature_map: Tensor, name: str, step_mask: Tensor | None) -> Tensor:
    """Attention map `(n, ..., 1)`, up to a factor per sample that cancels out later."""
    feature_map = channels_last(feature_map, name)
    feature_map = keep_rows(feature_map, fitting_mask(feature_map, step_mask))
    axes = tuple(range(1, len(feature_map.shape)))
    squares = ops.square(divide_by_largest(feature_map, axes))
    return ops.mean(squares, axis=-1, keepdims=True)


def _flat(attention: Tensor) -> Tensor:
    return normalize(ops.reshape(attention, (ops.shape(attention)[0], -1)))
