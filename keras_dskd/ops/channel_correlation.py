"""Correlations between channels, and the objectives that losses minimize."""

from keras import ops

from keras_dskd.internal.types import Replicas, Tensor
from keras_dskd.ops.checks import as_floats, as_paired_rows, check_rows
from keras_dskd.ops.rows import standardize
from keras_dskd.ops.samples import (
    all_reduce_sum,
    count_rows,
    mean_of_rows,
    mean_over_channels,
)
from keras_dskd.ops.sharing import shared


def channel_correlation(rows: Tensor, epsilon: float = 1e-5) -> Tensor:
    """Correlation matrix of the channels over the rows.

    Formula:

    ```
    R = zᵀ z / n
    ```

    with `z` the rows standardized per channel (biased variance).

    Args:
        rows: Tensor `(n, c)`, at least two rows.
        epsilon: Positive number, added to each variance. A constant channel therefore
            has correlation 0 with every channel, itself included.

    Returns:
        Tensor `(c, c)`, float32, symmetric, values in [-1, 1].

    Raises:
        ValueError: If there are fewer than two rows or the rank is not 2.
    """
    rows = as_floats(rows)
    check_rows(rows)
    z = standardize(rows, epsilon)
    return _mean_product(z, z)


def cross_correlation(
    teacher_rows: Tensor,
    student_rows: Tensor,
    epsilon: float = 1e-5,
    mask: Tensor | None = None,
    replicas: Replicas | None = None,
) -> Tensor:
    """Correlation of each teacher channel with each student channel.

    Formula: with `z` the rows standardized per channel,

    ```
    C = z_tᵀ z_s / n
    ```

    Nothing is detached here.

    Args:
        teacher_rows: Tensor `(n, c_teacher)`, at least two rows.
        student_rows: Tensor `(n, c_student)` of the same samples, in the same order.
        epsilon: Positive number, added to each variance.
        mask: Bool tensor `(n,)`, true for the rows to include. With fewer than two, all
            values are 0.
        replicas: See `standardize`.

    Returns:
        Tensor `(c_teacher, c_student)`, float32, values in [-1, 1].

    Raises:
        ValueError: If the numbers of rows differ or are below two.

    Source:
        Zbontar et al. 2021, Barlow Twins (arXiv 2103.03230), equation 2, with the
        teacher as the other view.
    """
    teacher_rows, student_rows = as_paired_rows(teacher_rows, student_rows, replicas)
    return _mean_product(
        standardize(teacher_rows, epsilon, mask, replicas),
        standardize(student_rows, epsilon, mask, replicas),
        mask,
        replicas,
    )


def off_diagonal_energy(
    rows: Tensor,
    epsilon: float = 1e-5,
    replicas: Replicas | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Mean squared correlation between different channels.

    Formula: with `R` the `channel_correlation`,

    ```
    Σ_{i≠j} R_ij² / (c (c - 1))
    ```

    Args:
        rows: Tensor `(n, c)`, at least two rows.
        epsilon: Positive number, added to each variance.
        replicas: See `standardize`.
        mask: Bool tensor `(n,)`, true for the rows to include. With fewer than two, the
            result is 0.

    Returns:
        Scalar, float32, in [0, 1]; 0 for a single channel.

    Raises:
        ValueError: If there are fewer than two rows or the rank is not 2.

    Source:
        The covariance term of VICReg (Bardes et al. 2022, arXiv 2105.04906,
        equation 3) on standardized rows.
    """
    rows = as_floats(rows)
    check_rows(rows, replicas=replicas)
    z = standardize(rows, epsilon, mask, replicas)
    channels = z.shape[1]
    energy = _off_diagonal_sum(z, z, mask, replicas)
    return energy / max(channels * (channels - 1), 1)


def channel_alignment(
    teacher_rows: Tensor,
    student_rows: Tensor,
    epsilon: float = 1e-5,
    mask: Tensor | None = None,
    replicas: Replicas | None = None,
) -> Tensor:
    """Mean squared difference between 1 and the correlation of matching channels.

    Formula: with `C` the `cross_correlation`,

    ```
    Σ_i (1 - C_ii)² / c
    ```

    Nothing is detached here.

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
        The invariance term of Barlow Twins (arXiv 2103.03230, equation 1), divided
        by the number of channels.
    """
    teacher_rows, student_rows = as_paired_rows(
        teacher_rows, student_rows, replicas, same_width=True
    )
    products = standardize(teacher_rows, epsilon, mask, replicas) * standardize(
        student_rows, epsilon, mask, replicas
    )  # (n, c)
    diagonal = mean_of_rows(products, mask, replicas)  # (1, c)
    if mask is None:
        return ops.mean(ops.square(1.0 - diagonal))
    return mean_over_channels(
        ops.square(1.0 - diagonal), count_rows(products, mask, replicas)
    )


def cross_off_diagonal_energy(
    teacher_rows: Tensor,
    student_rows: Tensor,
    epsilon: float = 1e-5,
    mask: Tensor | None = None,
    replicas: Replicas | None = None,
) -> Tensor:
    """Sum of squared correlations between different channels, divided by c.

    Formula: with `C` the `cross_correlation`,

    ```
    Σ_{i≠j} C_ij² / c
    ```

    The sum is divided by c, as in Barlow Twins; `off_diagonal_energy` divides by
    c (c - 1). Nothing is detached here.

    Args:
        teacher_rows: Tensor `(n, c)`, at least two rows.
        student_rows: Tensor `(n, c)` of the same samples, in the same order.
        epsilon: Positive number, added to each variance.
        mask: Bool tensor `(n,)`, true for the rows to include. With fewer than two, the
            result is 0.
        replicas: See `standardize`.

    Returns:
        Scalar, float32, in [0, c - 1].

    Raises:
        ValueError: If shapes differ or there are fewer than two rows.

    Source:
        The redundancy reduction term of Barlow Twins (arXiv 2103.03230,
        equation 1), divided by the number of channels.
    """
    teacher_rows, student_rows = as_paired_rows(
        teacher_rows, student_rows, replicas, same_width=True
    )
    z_teacher = standardize(teacher_rows, epsilon, mask, replicas)
    z_student = standardize(student_rows, epsilon, mask, replicas)
    return _off_diagonal_sum(z_teacher, z_student, mask, replicas) / z_student.shape[1]


def _mean_product(
    left: Tensor,
    right: Tensor,
    mask: Tensor | None = None,
    replicas: Replicas | None = None,
) -> Tensor:
    n = ops.maximum(count_rows(left, mask, replicas), 1.0)
    return all_reduce_sum(replicas, ops.matmul(ops.transpose(left), right)) / n


def _off_diagonal_sum(
    left: Tensor,
    right: Tensor,
    mask: Tensor | None = None,
    replicas: Replicas | None = None,
) -> Tensor:
    """`Σ_{i≠j} C_ij²` with `C = leftᵀ right / n`, for rows `(n, c)`.

    Computes only the smaller product matrix, of channels `(c, c)` or of rows `(n, n)`:
    both give the sum, because `||leftᵀ right||² = <left leftᵀ, right rightᵀ>`. With
    replicas it uses channels, because no replica holds all rows.
    """

    def by_channels() -> Tensor:
        products = _mean_product(left, right, mask, replicas)  # (c, c)
        off_diagonal = 1.0 - ops.eye(channels, dtype="float32")
        return ops.sum(ops.square(products) * off_diagonal)

    def by_rows() -> Tensor:
        n = ops.maximum(count_rows(left, mask), 1.0)
        # Divide before squaring: sums over many channels are large.
        of_left = _row_products(left) / n
        of_right = of_left if right is left else _row_products(right) / n
        total = ops.sum(of_left * of_right)
        diagonal = ops.sum(left * right, axis=0) / n  # (c,)
        # Rounding can make the difference slightly negative.
        return ops.maximum(total - ops.sum(ops.square(diagonal)), 0.0)

    rows, channels = left.shape
    if replicas is not None:
        return by_channels()
    if rows is not None:
        # (JAX's shape inference gives an unknown batch size a symbol, not an int.)
        is_smaller = isinstance(rows, int) and rows < channels
        return by_rows() if is_smaller else by_channels()
    return ops.cond(ops.shape(left)[0] < channels, by_rows, by_channels)


@shared
def _row_products(rows: Tensor) -> Tensor:
    return ops.matmul(rows, ops.transpose(rows))  # (n, n)
