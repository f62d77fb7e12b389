"""Features become rows: float32 matrices `(n, c)`, one channel a column."""

import keras
from keras import ops

from keras_dskd.internal.types import Replicas, RowsKind, Tensor
from keras_dskd.ops.checks import (
    as_floats,
    check_epsilon,
    check_not_empty,
    check_rows_kind,
)
from keras_dskd.ops.samples import keep_rows, mean_of_rows
from keras_dskd.ops.sharing import shared


@shared
def rows(
    feature: Tensor, rows: RowsKind = "pooled", data_format: str | None = None
) -> Tensor:
    """Turns a feature into float32 rows.

    Args:
        feature: Tensor `(n, c)`, or a feature map `(n, ..., c)` with any number of
            positions, of any real dtype.
        rows: What becomes a row. `"pooled"`: the mean over positions, one row a
            sample, `(n, c)`. `"flattened"`: all positions side by side, one row a
            sample, `(n, positions * c)`. `"positions"`: each position of each
            sample, `(n * positions, c)`.
        data_format: `"channels_last"` or `"channels_first"`, for feature maps of
            rank 4 and 5. Defaults to `keras.config.image_data_format()`. Rank 3 is
            always `(n, length, c)`.

    Returns:
        Tensor of rank 2, float32.

    Raises:
        ValueError: If `rows` is unknown or the feature has no channel axis.
    """
    check_rows_kind(rows)
    if isinstance(feature, (list, tuple, dict)):
        raise ValueError(
            f"Expected one feature. Received a {type(feature).__name__} of "
            f"{len(feature)}: the layer or model has several outputs. Name a layer "
            "with one output."
        )
    if data_format is not None:
        channel_axis(4, data_format)
    feature = as_floats(feature, "feature")
    rank = len(feature.shape)
    if rank < 2:
        raise ValueError(
            "Expected a feature of shape (n, c) or (n, ..., c). Received: "
            f"feature.shape={tuple(feature.shape)}"
        )
    if 0 in tuple(feature.shape)[1:]:
        raise ValueError(
            "Expected a feature with at least one position and one channel. Received: "
            f"feature.shape={tuple(feature.shape)}"
        )
    if rank == 2:
        return feature
    feature = ops.moveaxis(feature, channel_axis(rank, data_format), -1)
    if rows == "pooled":
        return ops.mean(feature, axis=tuple(range(1, rank - 1)))  # (n, c)
    if rows == "flattened":
        size: int | None = 1
        for length in feature.shape[1:]:
            size = None if None in (size, length) else size * length
        if size is None:
            raise ValueError(
                'rows="flattened" needs a feature map of known size. Received: '
                f'feature.shape={tuple(feature.shape)}. Use rows="pooled".'
            )
        return ops.reshape(feature, (-1, size))  # (n, positions * c)
    return ops.reshape(feature, (-1, feature.shape[-1]))  # (n * positions, c)


def channel_axis(rank: int, data_format: str | None = None) -> int:
    """Which axis of a feature map of that rank holds the channels. See `rows`."""
    data_format = data_format or keras.config.image_data_format()
    if data_format not in ("channels_last", "channels_first"):
        raise ValueError(
            '`data_format` must be "channels_last" or "channels_first". Received: '
            f"data_format={data_format!r}"
        )
    return 1 if rank > 3 and data_format == "channels_first" else rank - 1


@shared
def standardize(
    rows: Tensor,
    epsilon: float = 1e-5,
    mask: Tensor | None = None,
    replicas: Replicas | None = None,
) -> Tensor:
    """Standardises each channel over the rows.

    Formula:

    ```
    z = (x - mean(x)) / sqrt(var(x) + epsilon)
    ```

    with the biased variance (divided by n). A constant channel becomes 0 and has
    a finite gradient.

    Args:
        rows: Tensor `(n, c)`.
        epsilon: Added to the variance, in squared units of the feature.
        mask: Bool tensor `(n,)`, true for the rows to standardise over. The others
            become 0, whatever they hold.
        replicas: Where rows are a part of the batch, what sums and gathers over the
            replicas that hold the others: mean and variance are those of all rows.

    Returns:
        Tensor `(n, c)`, float32.

    Raises:
        ValueError: If the rank is not 2, or there are no rows or no channels.
    """
    check_epsilon(epsilon)
    rows = as_floats(rows)
    check_not_empty(rows, replicas)
    centred = centre(rows, mask, replicas)
    # Squares of features beyond 1e19 overflow float32. Dividing by a constant
    # leaves the formula as it is, provided that epsilon is divided as well.
    largest = ops.stop_gradient(ops.abs(centred))
    if replicas is not None:
        largest = replicas.gather(_largest(largest))
    scale = _largest(largest)  # (1, c)
    centred = centred / scale
    variance = mean_of_rows(ops.square(centred), mask, replicas)  # (1, c)
    return centred * ops.rsqrt(variance + epsilon / scale / scale)


def _largest(rows: Tensor) -> Tensor:
    return ops.max(rows, axis=0, keepdims=True, initial=1.0)


def centre(
    rows: Tensor, mask: Tensor | None = None, replicas: Replicas | None = None
) -> Tensor:
    """Each channel less its mean over the rows; arguments as in `standardize`."""
    # The mean of equal numbers can miss them by a rounding, which would be taken for a
    # spread. Less one of them, a constant channel is exactly 0.
    if replicas is not None:
        one = mean_of_rows(rows, mask, replicas)  # Missed by a rounding: here enough.
    elif mask is not None:
        one = ops.take(rows, ops.argmax(ops.cast(mask, "int32")), axis=0)[None]
    else:
        one = rows[:1]
    rows = keep_rows(rows, mask) - ops.stop_gradient(one)
    return keep_rows(rows - mean_of_rows(rows, mask, replicas), mask)


@shared
def normalize(rows: Tensor) -> Tensor:
    """Scales each row to unit L2 length; a row of zeros stays zero.

    Args:
        rows: Tensor `(n, c)`.

    Returns:
        Tensor `(n, c)`, float32. The gradient of a zero row is zero.

    Raises:
        ValueError: If the rank is not 2, or there are no rows or no channels.
    """
    rows = as_floats(rows)
    check_not_empty(rows)
    largest = ops.stop_gradient(ops.max(ops.abs(rows), axis=1, keepdims=True))
    is_zero = ops.equal(largest, 0.0)  # (n, 1)
    # The largest entry becomes 1, so that squares neither overflow nor vanish.
    rows = rows / ops.where(is_zero, 1.0, largest)
    squares = ops.sum(ops.square(rows), axis=1, keepdims=True)
    lengths = ops.sqrt(ops.where(is_zero, 1.0, squares))
    return ops.where(is_zero, 0.0, rows / lengths)
