"""Effective rank: how many dimensions the rows use."""

from keras import ops

from keras_dskd.internal.types import Tensor
from keras_dskd.ops.checks import as_floats, check_rows
from keras_dskd.ops.rows import divide_by_largest


def effective_rank(rows: Tensor) -> Tensor:
    """Effective rank of the rows: exponential of the entropy of their singular values.

    Formula:

    ```
    exp(-Σ_k p_k log p_k),  p_k = σ_k / Σσ + 1e-7
    ```

    over the min(n, c) singular values `σ` of the rows, which are not centered.

    Args:
        rows: Tensor `(n, c)`, at least two rows.

    Returns:
        Scalar, float32, between 1 and min(n, c) (up to the 1e-7). NaN if a value is
        infinite or NaN.

    Raises:
        ValueError: If there are fewer than two rows or the rank is not 2.

    Source:
        RankMe (Garrido et al. 2023, arXiv 2210.02885), equations 1 and 2.
    """
    rows = as_floats(rows)
    check_rows(rows)
    is_finite = ops.all(ops.isfinite(rows))
    rows = ops.where(is_finite, rows, 0.0)  # torch's SVD would raise.
    # The effective rank does not depend on scale.
    sigma = ops.svd(divide_by_largest(rows), compute_uv=False)  # (min(n, c),)
    total = ops.sum(sigma)
    p = sigma / ops.where(ops.equal(total, 0.0), 1.0, total) + 1e-7
    return ops.where(is_finite, ops.exp(-ops.sum(p * ops.log(p))), float("nan"))


def centered_effective_rank(rows: Tensor) -> Tensor:
    """`effective_rank` after subtracting each channel's mean.

    Args:
        rows: Tensor `(n, c)`, at least two rows.

    Returns:
        Scalar, float32.

    Raises:
        ValueError: If there are fewer than two rows or the rank is not 2.
    """
    rows = as_floats(rows)
    check_rows(rows)
    return effective_rank(rows - ops.mean(rows, axis=0, keepdims=True))
