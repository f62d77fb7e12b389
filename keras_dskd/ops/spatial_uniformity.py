"""Uniformity of rows on the unit sphere."""

from collections.abc import Callable
from typing import Any, NoReturn

from keras import ops

from keras_dskd.internal.types import Replicas, Tensor
from keras_dskd.ops.checks import as_floats, check_rows, check_temperature
from keras_dskd.ops.rows import normalize
from keras_dskd.ops.samples import all_reduce_sum, keep_rows

# Block size: at most this many pairs of rows (they fit the processor's cache), but at
# least this many rows (the matrix product stays efficient).
MAX_PAIRS_PER_BLOCK = 2**21
MIN_ROWS_PER_BLOCK = 128

#: Above this temperature exp(-t ||u_i - u_j||²) underflows float32, so the largest
#: exponent is subtracted first (as in logsumexp).
_MAX_PLAIN_TEMPERATURE = 15.0

#: The exponent of pairs to leave out: its exponential is 0.
_EXCLUDED = -1e9


def spatial_uniformity(
    rows: Tensor,
    temperature: float = 2.0,
    replicas: Replicas | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Logarithm of the mean Gaussian potential between rows on the unit sphere.

    Formula:

    ```
    log mean_{i<j} exp(-t ||u_i - u_j||²),  u = x / ||x||
    ```

    The logarithm is natural. Lower is more uniform: 0 if all rows point the same way,
    -4 t for two opposite rows.

    Value and gradient are computed in one pass over blocks of rows, so memory grows
    with n c, not with n². On torch the function therefore does not run inside
    `keras.ops.vectorized_map`.

    Args:
        rows: Tensor `(n, c)`, at least two rows. A row of zeros stays at the origin.
        temperature: `t`, between 1e-6 and 1e6. Defaults to 2, as in the paper. A larger
            value focuses on closer neighbors.
        replicas: Collective operations, if `rows` are one replica's part of the batch.
            Each replica pairs its own rows with the rows of all replicas.
        mask: Bool tensor `(n,)`, true for the rows to include. With fewer than two, the
            result is 0.

    Returns:
        Scalar, float32, in [-4 t, 0].

    Raises:
        ValueError: If there are fewer than two rows, the rank is not 2, or
            `temperature` is out of range.
        NotImplementedError: If the gradient is differentiated again.

    Source:
        Wang and Isola 2020 (arXiv 2005.10242), L_uniform.
    """
    check_temperature(temperature)
    rows = as_floats(rows)
    check_rows(rows, replicas=replicas)
    temperature = float(temperature)

    @ops.custom_gradient
    def log_mean_potential(unit: Tensor) -> tuple[Tensor, Callable[..., Tensor]]:
        value, gradient = _value_and_gradient(unit, temperature, replicas, mask)

        def backward(*args: Tensor, upstream: Tensor | None = None) -> Tensor:
            source = unit
            if upstream is None:
                (upstream,) = args
            else:
                (source,) = args  # On torch, the tensor that autograd tracks.
            upstream = all_reduce_sum(replicas, upstream)
            return upstream * _not_differentiable(source, gradient)

        return value, backward

    return log_mean_potential(normalize(keep_rows(rows, mask)))


@ops.custom_gradient
def _not_differentiable(
    source: Tensor, gradient: Tensor
) -> tuple[Tensor, Callable[..., NoReturn]]:
    """The gradient, linked to `source` so that differentiating it raises an error."""

    def refuse(*args: Tensor, upstream: Tensor | None = None) -> NoReturn:
        raise NotImplementedError(
            "`spatial_uniformity` has a first derivative only. For second derivatives, "
            "write the formula in its docstring with `keras.ops`."
        )

    return gradient, refuse


def _value_and_gradient(
    unit: Tensor,
    temperature: float,
    replicas: Replicas | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Value and gradient with respect to `unit`, `(n, c)`, in one pass.

    With `E_ij = exp(-t ||u_i - u_j||²)` for i ≠ j and `S` the sum of all `E_ij`, the
    gradient is `4 t / S (E u - (Σ_j E_ij) u)`. Row i's gradient involves only pairs
    that contain row i, so a replica needs the sums of its own rows and the global `S`.
    """
    own, global_offset, count = unit, 0, _length(unit)
    own_mask = None if mask is None else ops.cast(mask, "float32")[:, None]
    if replicas is not None:
        unit, global_offset = replicas.gather(own), replicas.global_offset(own)
    n = _length(unit)
    squares = ops.sum(ops.square(unit), axis=1, keepdims=True)  # 0 for a row of zeros.
    ones = ops.ones_like(squares)
    # `left @ right` is -t ||u_i - u_j||².
    left = ops.concatenate(
        [2.0 * temperature * unit, ones, -temperature * squares], axis=1
    )
    of_others, included = -temperature * squares, ones
    if own_mask is not None:
        included = own_mask if replicas is None else replicas.gather(own_mask)
        of_others = ops.where(included > 0, of_others, _EXCLUDED)
    right = ops.transpose(
        ops.concatenate([unit, of_others, ones], axis=1)
    )  # (c + 2, n)
    summed = ops.concatenate([unit, ones], axis=1)
    all_indices = ops.arange(n, dtype="int32")[None, :]

    def sums_of_block(index: Tensor) -> Tensor:
        """`E u` and `Σ_j E_ij` of the rows with these indices, `(block, c + 1)`.

        If `is_steep`, both are divided by exp(largest exponent of the row), and that
        exponent is appended.
        """
        if replicas is not None:  # An empty last replica has the offset n.
            index = ops.minimum(index + global_offset, n - 1)
        exponents = ops.matmul(ops.take(left, index, axis=0), right)  # (block, n)
        # Exclude the pair of a row with itself.
        exponents = ops.where(index[:, None] == all_indices, _EXCLUDED, exponents)
        largest = ops.max(exponents, axis=1, keepdims=True) if is_steep else 0.0
        sums = ops.matmul(ops.exp(exponents - largest), summed)  # (block, c + 1)
        return ops.concatenate([sums, largest], axis=1) if is_steep else sums

    is_steep = temperature > _MAX_PLAIN_TEMPERATURE
    sums = _map_blocks(sums_of_block, count, n)
    channels = unit.shape[1]
    attraction, potential = sums[:, :channels], sums[:, channels : channels + 1]
    shift = 0.0
    if is_steep:
        largest = sums[:, channels + 1 :]
        shift = ops.max(largest if replicas is None else replicas.gather(largest))
        scale = ops.exp(largest - shift)
        attraction, potential = scale * attraction, scale * potential
    n = ops.cast(n, "float32")
    if own_mask is not None:
        attraction, potential = own_mask * attraction, own_mask * potential
        n = ops.sum(included)
    total = all_reduce_sum(replicas, ops.sum(potential))
    pairs = n * (n - 1.0)
    # A batch of unknown size can turn out to have a single row, and so no pair.
    has_pairs = pairs > 0
    total = ops.where(has_pairs, total, 1.0)
    value = ops.log(total) + shift - ops.log(ops.maximum(pairs, 1.0))
    gradient = (4.0 * temperature / total) * (attraction - potential * own)
    # Rounding can make the value of equal rows slightly positive.
    return (
        ops.where(has_pairs, ops.minimum(value, 0.0), 0.0),
        ops.where(has_pairs, gradient, 0.0),
    )


def _length(rows: Tensor) -> Any:
    """Number of rows: an integer if it is known, else a tensor."""
    return rows.shape[0] if rows.shape[0] is not None else ops.shape(rows)[0]


def _map_blocks(function: Callable[[Tensor], Tensor], n: Any, others: Any) -> Tensor:
    """Apply a function of row indices block by block: `(n, ...)`.

    Args:
        function: Maps int32 indices `(block,)` to a tensor `(block, ...)`.
        n: Number of rows.
        others: Number of rows that each row is paired with.
    """
    if ops.is_tensor(n) or ops.is_tensor(others):
        size = ops.maximum(
            MAX_PAIRS_PER_BLOCK // ops.maximum(others, 1), MIN_ROWS_PER_BLOCK
        )
        size = ops.maximum(ops.minimum(n, size), 1)
        blocks = ops.maximum((n + size - 1) // size, 1)  # `map` needs at least one.
    else:
        # (JAX's shape inference gives an unknown batch size a symbol, not an int.)
        size = n
        if isinstance(n, int):
            size = min(n, max(MAX_PAIRS_PER_BLOCK // others, MIN_ROWS_PER_BLOCK))
        if size == n:
            return function(ops.arange(n, dtype="int32"))
        blocks = -(-n // size)
    # The last block is filled up by repeating the last row.
    index = ops.arange(blocks * size, dtype="int32")
    index = ops.maximum(ops.minimum(index, n - 1), 0)
    results = ops.map(function, ops.reshape(index, (blocks, size)))
    return ops.reshape(results, (-1, results.shape[-1]))[:n]
