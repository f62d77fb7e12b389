"""Compare the attention maps of two models."""

from keras import ops

from keras_dskd.internal.types import Tensor
from keras_dskd.ops.grids import channels_last, on_one_grid
from keras_dskd.ops.rows import divide_by_largest, normalize
from keras_dskd.ops.samples import weighted_mean


def attention_transfer(
    teacher_map: Tensor, student_map: Tensor, sample_weight: Tensor | None = None
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

    Returns:
        Scalar, float32, in [0, 2] with equal sample weights.

    Raises:
        ValueError: If a feature has no positions, or one grid is not a multiple of the
            other.

    Source:
        Zagoruyko and Komodakis 2017 (arXiv 1612.03928), equation 2 with p = 2, squared
        as in the authors' code. That code also divides by the number of positions: a
        weight of 1000 there corresponds to 1000 / positions here.
    """
    teacher, student = on_one_grid(
        _attention(teacher_map, "teacher_map"), _attention(student_map, "student_map")
    )  # (n, ..., 1)
    distances = ops.sum(ops.square(_flat(teacher) - _flat(student)), axis=1)
    return weighted_mean(distances, sample_weight)


def _attention(feature_map: Tensor, name: str) -> Tensor:
    """Attention map `(n, ..., 1)`, up to a factor per sample that cancels out later."""
    feature_map = channels_last(feature_map, name)
    axes = tuple(range(1, len(feature_map.shape)))
    squares = ops.square(divide_by_largest(feature_map, axes))
    return ops.mean(squares, axis=-1, keepdims=True)


def _flat(attention: Tensor) -> Tensor:
    return normalize(ops.reshape(attention, (ops.shape(attention)[0], -1)))
