"""FitNet: the student's features regress on the teacher's."""

from keras import ops

from keras_dskd.internal.types import Replicas, Tensor
from keras_dskd.ops.checks import as_floats, check_paired_rows, check_same_width
from keras_dskd.ops.rows import standardize
from keras_dskd.ops.samples import count_rows, mean_of_rows


def standardized_distance(
    teacher_rows: Tensor,
    student_rows: Tensor,
    epsilon: float = 1e-5,
    mask: Tensor | None = None,
    replicas: Replicas | None = None,
) -> Tensor:
    """Mean squared difference between features, each channel standardised.

    Formula: with `z` the rows standardised per channel,

    ```
    Σ_bi (z_t,bi - z_s,bi)² / (n c)
    ```

    For channels whose variance is well above epsilon that is `2 (1 - mean_i C_ii)`,
    with `C` their cross-correlation: `channel_alignment` squares each `1 - C_ii`, and
    so looks most at the channels that follow least. Nothing is detached here.

    Args:
        teacher_rows: Tensor `(n, c)`, at least two rows.
        student_rows: Tensor `(n, c)`, row i of the same sample.
        epsilon: Added to each variance.
        mask: Bool tensor `(n,)`, true for the rows to look at. With fewer than two
            of them the value is 0.
        replicas: What holds the other rows of the batch; see `standardize`.

    Returns:
        Scalar, float32, in [0, 4].

    Raises:
        ValueError: If shapes differ or there are fewer than two rows.

    Source:
        Romero et al. 2015, FitNets (arXiv 1412.6550), equation 3, on standardised
        features, so that the weight does not depend on their scale.
    """
    teacher_rows = as_floats(teacher_rows, "teacher_rows")
    student_rows = as_floats(student_rows, "student_rows")
    check_paired_rows(teacher_rows, student_rows, replicas)
    check_same_width(teacher_rows, student_rows)
    squares = ops.square(
        standardize(teacher_rows, epsilon, mask, replicas)
        - standardize(student_rows, epsilon, mask, replicas)
    )  # (n, c)
    if mask is None and replicas is None:
        return ops.mean(squares)
    mean = ops.mean(mean_of_rows(squares, mask, replicas))
    return ops.where(count_rows(squares, mask, replicas) >= 2, mean, 0.0)
