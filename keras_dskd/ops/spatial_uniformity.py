"""How evenly rows spread over the unit sphere."""

from keras import ops

from keras_dskd.ops.checks import as_floats, check_rows, check_temperature
from keras_dskd.ops.rows import normalize


def spatial_uniformity(rows, temperature=2.0):
    """Logarithm of the mean Gaussian potential between rows on the unit sphere.

    Formula:

    ```
    log mean_{i<j} exp(-t ||u_i - u_j||²),  u = x / ||x||
    ```

    Lower is more uniform: 0 when all rows point the same way, -4 t for two
    opposite rows.

    Args:
        rows: Tensor `(n, c)`, at least two rows. A row of zeros stays at the origin.
        temperature: `t`, positive. 2 as in the paper; larger values look at
            closer neighbours only.

    Returns:
        Scalar, float32, in [-4 t, 0].

    Raises:
        ValueError: If there are fewer than two rows, the rank is not 2, or
            `temperature` is not positive.

    Source:
        Wang and Isola 2020 (arXiv 2005.10242), L_uniform.
    """
    check_temperature(temperature)
    rows = as_floats(rows)
    check_rows(rows)
    unit = normalize(rows)  # (n, c)
    squares = ops.sum(ops.square(unit), axis=1)  # (n,), 0 for a row of zeros
    distances = (
        squares[:, None]
        + squares[None, :]
        - 2.0 * ops.matmul(unit, ops.transpose(unit))
    )  # (n, n)
    index = ops.arange(ops.shape(rows)[0])
    n = ops.cast(ops.shape(rows)[0], "float32")
    pairs = n * (n - 1.0)
    exponents = -temperature * ops.maximum(distances, 0.0)
    # A row's distance to itself is no pair: exp(-1e9) is 0.
    exponents = ops.where(index[:, None] == index[None, :], -1e9, exponents)
    potential = ops.logsumexp(exponents) - ops.log(ops.maximum(pairs, 1.0))
    # A batch of one whose size is unknown until run time has no pair.
    return ops.where(pairs > 0, potential, 0.0)
