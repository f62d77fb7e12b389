"""The formulas as written, with full matrices `(c, c)` and `(n, n)`.

`keras_dskd.ops` computes the same in cheaper ways. `formulas.py` compares both in value
and in time. Nothing here imports keras_dskd.
"""

from keras import ops


def off_diagonal_energy(rows, epsilon=1e-5):
    """`Σ_{i≠j} R_ij² / (c (c - 1))`, with `R = zᵀ z / n`.

    Args:
        rows: Tensor `(n, c)`.
        epsilon: Added to each variance.

    Returns:
        Scalar.
    """
    z = _standardize(rows, epsilon)
    channels = rows.shape[1]
    return _off_diagonal_sum(_correlation(z, z)) / (channels * (channels - 1))


def channel_independence(
    teacher_rows, student_rows, off_diagonal_weight=0.02, epsilon=1e-5
):
    """`Σ_i (1 - C_ii)² / c + weight Σ_{i≠j} C_ij² / c`, with `C = z_tᵀ z_s / n`.

    Args:
        teacher_rows: Tensor `(n, c)`.
        student_rows: Tensor `(n, c)`.
        off_diagonal_weight: Weight of the second sum.
        epsilon: Added to each variance.

    Returns:
        Scalar.
    """
    correlation = _correlation(
        _standardize(teacher_rows, epsilon), _standardize(student_rows, epsilon)
    )  # (c, c)
    alignment = ops.sum(ops.square(1.0 - ops.diagonal(correlation)))
    decorrelation = off_diagonal_weight * _off_diagonal_sum(correlation)
    return (alignment + decorrelation) / correlation.shape[0]


def spatial_uniformity(rows, temperature=2.0):
    """`log mean_{i≠j} exp(-t ||u_i - u_j||²)`, with `u` the rows of unit length.

    Args:
        rows: Tensor `(n, c)`.
        temperature: `t`.

    Returns:
        Scalar.
    """
    unit = rows / ops.sqrt(ops.sum(ops.square(rows), axis=1, keepdims=True))
    squares = ops.sum(ops.square(unit), axis=1)  # (n,)
    distances = (
        squares[:, None]
        + squares[None, :]
        - 2.0 * ops.matmul(unit, ops.transpose(unit))
    )  # (n, n)
    n = rows.shape[0]
    index = ops.arange(n)
    exponents = -temperature * ops.maximum(distances, 0.0)
    exponents = ops.where(index[:, None] == index[None, :], -1e9, exponents)
    return ops.logsumexp(exponents) - ops.log(float(n * (n - 1)))


def effective_rank(rows):
    """`exp(-Σ p log p)`, with `p = σ / Σσ + 1e-7` from a singular value decomposition.

    Args:
        rows: Tensor `(n, c)`.

    Returns:
        Scalar.
    """
    sigma = ops.svd(rows, compute_uv=False)  # (min(n, c),)
    p = sigma / ops.sum(sigma) + 1e-7
    return ops.exp(-ops.sum(p * ops.log(p)))


def _standardize(rows, epsilon):
    centered = rows - ops.mean(rows, axis=0, keepdims=True)
    variance = ops.mean(ops.square(centered), axis=0, keepdims=True)  # (1, c)
    return centered * ops.rsqrt(variance + epsilon)


def _correlation(left, right):
    return ops.matmul(ops.transpose(left), right) / left.shape[0]


def _off_diagonal_sum(matrix):
    off_diagonal = 1.0 - ops.eye(matrix.shape[0], dtype="float32")
    return ops.sum(ops.square(matrix) * off_diagonal)
