"""How evenly rows spread over the unit sphere."""

from collections.abc import Callable
from typing import Any, NoReturn

from keras import ops

from keras_dskd.internal.types import Replicas, Tensor
from keras_dskd.ops.checks import as_floats, check_rows, check_temperature
from keras_dskd.ops.rows import normalize
from keras_dskd.ops.samples import over

# What bounds the memory: a block is of so many pairs of rows, for a processor's cache,
# but of no fewer rows than make a product worth its while.
PAIRS_AT_ONCE = 2**21
ROWS_AT_LEAST = 128

#: Potentials at higher temperatures are too small for float32 as they are.
_PLAIN_BELOW = 15.0


def spatial_uniformity(
    rows: Tensor, temperature: float = 2.0, replicas: Replicas | None = None
) -> Tensor:
    """Logarithm of the mean Gaussian potential between rows on the unit sphere.

    Formula:

    ```
    log mean_{i<j} exp(-t ||u_i - u_j||²),  u = x / ||x||
    ```

    Lower is more uniform: 0 when all rows point the same way, -4 t for two
    opposite rows.

    The value and its gradient are made in one pass over blocks of rows, so that memory
    grows with n c, not with n². On torch that rules out a `keras.ops.vectorized_map`
    around it.

    Args:
        rows: Tensor `(n, c)`, at least two rows. A row of zeros stays at the origin.
        temperature: `t`, positive. 2 as in the paper; larger values look at
            closer neighbours only.
        replicas: Where rows are a part of the batch, what sums and gathers over the
            replicas that hold the others: each looks from its own rows at all.

    Returns:
        Scalar, float32, in [-4 t, 0].

    Raises:
        ValueError: If there are fewer than two rows, the rank is not 2, or
            `temperature` is not positive.
        NotImplementedError: If its gradient is differentiated.

    Source:
        Wang and Isola 2020 (arXiv 2005.10242), L_uniform.
    """
    check_temperature(temperature)
    rows = as_floats(rows)
    check_rows(rows, replicas=replicas)
    temperature = float(temperature)

    @ops.custom_gradient
    def log_mean_potential(unit: Tensor) -> tuple[Tensor, Callable[..., Tensor]]:
        value, gradient = _value_and_gradient(unit, temperature, replicas)

        def backward(*args: Tensor, upstream: Tensor | None = None) -> Tensor:
            source = unit
            if upstream is None:
                (upstream,) = args
            else:
                (source,) = args  # On torch the one that autograd knows.
            return over(replicas, upstream) * _not_differentiable(source, gradient)

        return value, backward

    return log_mean_potential(normalize(rows))


@ops.custom_gradient
def _not_differentiable(
    source: Tensor, gradient: Tensor
) -> tuple[Tensor, Callable[..., NoReturn]]:
    """The gradient, known to come from `source`, to say so if that is asked for."""

    def refuse(*args: Tensor, upstream: Tensor | None = None) -> NoReturn:
        raise NotImplementedError(
            "`spatial_uniformity` has a first derivative only. For second ones, write "
            "the formula in its docstring with `keras.ops`."
        )

    return gradient, refuse


def _value_and_gradient(
    unit: Tensor, temperature: float, replicas: Replicas | None = None
) -> tuple[Tensor, Tensor]:
    """Value and gradient with respect to `unit`, `(n, c)`, in one pass.

    With `E_ij = exp(-t ||u_i - u_j||²)` for i ≠ j and `S` the sum of all, the gradient
    is `4 t / S (E u - (Σ_j E_ij) u)`: to that of a row all pairs that it does not form
    are nothing, so that a replica needs no more than its own rows' sums and `S`.
    """
    own, start, count = unit, 0, _length(unit)
    if replicas is not None:
        unit, start = replicas.gather(own), replicas.start(own)
    n = _length(unit)
    squares = ops.sum(ops.square(unit), axis=1, keepdims=True)  # 0 for a row of zeros.
    ones = ops.ones_like(squares)
    # One product of these gives -t ||u_i - u_j||².
    left = ops.concatenate(
        [2.0 * temperature * unit, ones, -temperature * squares], axis=1
    )
    right = ops.transpose(
        ops.concatenate([unit, -temperature * squares, ones], axis=1)
    )  # (c + 2, n)
    summed = ops.concatenate([unit, ones], axis=1)
    everyone = ops.arange(n, dtype="int32")[None, :]

    def of_block(index: Tensor) -> Tensor:
        if replicas is not None:  # One without rows begins where all rows end.
            index = ops.minimum(index + start, n - 1)
        exponents = ops.matmul(ops.take(left, index, axis=0), right)  # (block, n)
        # A row is no neighbour of its own: exp(-1e9) is 0.
        exponents = ops.where(index[:, None] == everyone, -1e9, exponents)
        largest = ops.max(exponents, axis=1, keepdims=True) if is_steep else 0.0
        sums = ops.matmul(ops.exp(exponents - largest), summed)  # (block, c + 1)
        return ops.concatenate([sums, largest], axis=1) if is_steep else sums

    is_steep = temperature > _PLAIN_BELOW
    sums = _over_blocks(of_block, count, n)
    channels = unit.shape[1]
    attraction, potential = sums[:, :channels], sums[:, channels : channels + 1]
    shift = 0.0
    if is_steep:
        largest = sums[:, channels + 1 :]
        shift = ops.max(largest if replicas is None else replicas.gather(largest))
        scale = ops.exp(largest - shift)
        attraction, potential = scale * attraction, scale * potential
    total = over(replicas, ops.sum(potential))
    n = ops.cast(n, "float32")
    pairs = n * (n - 1.0)
    # A batch of one whose size is unknown until run time has no pair.
    has_pairs = pairs > 0
    total = ops.where(has_pairs, total, 1.0)
    value = ops.log(total) + shift - ops.log(ops.maximum(pairs, 1.0))
    gradient = (4.0 * temperature / total) * (attraction - potential * own)
    # Rounding must not make rows that are equal less than uniform.
    return (
        ops.where(has_pairs, ops.minimum(value, 0.0), 0.0),
        ops.where(has_pairs, gradient, 0.0),
    )


def _length(rows: Tensor) -> Any:
    return rows.shape[0] if rows.shape[0] is not None else ops.shape(rows)[0]


def _over_blocks(function: Callable[[Tensor], Tensor], n: Any, others: Any) -> Tensor:
    """Applies a function of row indices to blocks of rows: `(n, ...)`.

    Args:
        function: Takes int32 indices `(block,)`, and gives `(block, ...)`.
        n: Number of rows.
        others: Number of rows that each of them is paired with.
    """
    if ops.is_tensor(n) or ops.is_tensor(others):
        size = ops.maximum(PAIRS_AT_ONCE // ops.maximum(others, 1), ROWS_AT_LEAST)
        size = ops.maximum(ops.minimum(n, size), 1)
        blocks = ops.maximum((n + size - 1) // size, 1)  # None cannot be put together.
    else:
        # (A batch of any size is no integer while JAX works out shapes.)
        size = n
        if isinstance(n, int):
            size = min(n, max(PAIRS_AT_ONCE // others, ROWS_AT_LEAST))
        if size == n:
            return function(ops.arange(n, dtype="int32"))
        blocks = -(-n // size)
    # The last block repeats the last row to be of the size of the others.
    index = ops.arange(blocks * size, dtype="int32")
    index = ops.maximum(ops.minimum(index, n - 1), 0)
    results = ops.map(function, ops.reshape(index, (blocks, size)))
    return ops.reshape(results, (-1, results.shape[-1]))[:n]
