"""Compare features value by value, as FitNet does."""

from keras import ops

from keras_dskd.internal.types import Replicas, Tensor
from keras_dskd.ops.checks import as_paired_rows
from keras_dskd.ops.rows import standardize
from keras_dskd.ops.samples import count_rows, mean_of_rows, mean_over_channels


def standardized_distance(
    teacher_rows: Tensor,
    student_rows: Tensor,
    epsilon: float = 1e-5,
    mask: Tensor | None = None,
    replicas: Replicas | None = None,
) -> Tensor:
    """Mean squared difference between standardized features.

    Formula: with `z` the rows standardized per channel,

    ```
    Σ_bi (z_t,bi - z_s,bi)² / (n c)
    ```

    If each channel's variance is much larger than epsilon, this equals
    `2 (1 - mean_i C_ii)`, with `C` the cross-correlation. In contrast,
    `channel_alignment` squares each `1 - C_ii`, so channels with a low correlation
    count more. Nothing is detached here.

    Args:
        teacher_rows: Tensor `(n, c)`, at least two rows.
        student_rows: Tensor `(n, c)` of the same samples, in the same order.
        epsilon: Positive number, added to each variance.
        mask: Bool tensor `(n,)`, true for the rows to include, or `(n, c)`, true for
            the values to include. With fewer than two, the result is 0; channels with
            fewer than two are left out.
        replicas: See `standardize`.

    Returns:
        Scalar, float32, in [0, 4].

    Raises:
        ValueError: If shapes differ or there are fewer than two rows.

    Source:
        Romero et al. 2015, FitNets (arXiv 1412.6550), equation 3, on standardized
        features, so that the loss does not depend on their scale.
    """
    teacher_rows, student_rows = as_paired_rows(
        teacher_rows, student_rows, replicas, same_width=True
    )
    squares = ops.square(
        standardize(teacher_rows, epsilon, mask, replicas)
        - standardize(student_rows, epsilon, mask, replicas)
    )  # (n, c)
    if mask is None and replicas is None:
        return ops.mean(squares)
    means = mean_of_rows(squares, mask, replicas)  # (1, c)
    return mean_over_channels(means, count_rows(squares, mask, replicas))
