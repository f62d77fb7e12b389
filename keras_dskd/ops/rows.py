"""Features as rows: float32 matrices `(n, c)` with one channel per column."""

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
from keras_dskd.ops.step_masks import fitting_mask, over_positions


@shared
def as_rows(
    feature: Tensor,
    rows: RowsKind = "pooled",
    data_format: str | None = None,
    step_mask: Tensor | None = None,
) -> Tensor:
    """Convert a feature to float32 rows. The public name is `keras_dskd.ops.rows`.

    Args:
        feature: Tensor `(n, c)`, or a feature map `(n, ..., c)` with any number of
            positions, of any real dtype.
        rows: What becomes a row.

            - `"pooled"`: the mean over positions, one row per sample, `(n, c)`.
            - `"flattened"`: all positions side by side, one row per sample,
              `(n, positions * c)`.
            - `"positions"`: each position of each sample, `(n * positions, c)`.
        data_format: `"channels_last"` or `"channels_first"`, for feature maps of
            rank 4 and 5. Defaults to `keras.config.image_data_format()`. Rank 3 is
            always `(n, length, c)`.
        step_mask: Bool tensor `(n, steps)`, true for real steps, as Keras's layers pass
            it on. `"pooled"` averages over the real steps: a sample without any becomes
            0. With `"flattened"` and `"positions"` the other steps become 0.

    Returns:
        Tensor of rank 2, float32.

    Raises:
        ValueError: If `rows` is unknown, the feature has no channel axis, or the mask
            does not fit it.
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
    if rank > 2:
        feature = ops.moveaxis(feature, channel_axis(rank, data_format), -1)
    step_mask = fitting_mask(feature, step_mask)
    feature = keep_rows(feature, step_mask)
    if rank == 2:
        return feature
    if rows == "pooled":
        positions = tuple(range(1, rank - 1))
        if step_mask is None:
            return ops.mean(feature, axis=positions)  # (n, c)
        counted = ops.cast(over_positions(step_mask, feature), "float32")
        counted = ops.expand_dims(ops.sum(counted, axis=positions), -1)  # (n, 1)
        return ops.sum(feature, axis=positions) / ops.maximum(counted, 1.0)
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
    """Index of the channel axis in a feature map of that rank. See `as_rows`."""
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
    """Standardize each channel over the rows.

    Formula:

    ```
    z = (x - mean(x)) / sqrt(var(x) + epsilon)
    ```

    The variance is biased (divided by n). A constant channel becomes 0 and has a finite
    gradient.

    Args:
        rows: Tensor `(n, c)`.
        epsilon: Positive number, added to the variance, in squared units of the
            feature.
        mask: Bool tensor `(n,)`, true for the rows to include, or `(n, c)`, true for
            the values to include. The others become 0, whatever their values.
        replicas: Collective operations, if `rows` are one replica's part of the batch.
            Mean and variance are then those of the whole batch.

    Returns:
        Tensor `(n, c)`, float32.

    Raises:
        ValueError: If the rank is not 2, or there are no rows or no channels.
    """
    check_epsilon(epsilon)
    rows = as_floats(rows)
    check_not_empty(rows, replicas)
    centered = center(rows, mask, replicas)
    # Squares of features beyond 1e19 overflow float32. Dividing by a constant does not
    # change the result if epsilon is divided too.
    largest = ops.stop_gradient(ops.abs(centered))
    if replicas is not None:
        largest = replicas.gather(_largest(largest))
    scale = _largest(largest)  # (1, c)
    centered = centered / scale
    variance = mean_of_rows(ops.square(centered), mask, replicas)  # (1, c)
    return centered * ops.rsqrt(variance + epsilon / scale / scale)


def _largest(rows: Tensor) -> Tensor:
    if rows.shape[0] == 0:  # One replica may have no rows.
        return ops.ones((1, rows.shape[1]))
    # On torch, the `initial` of `ops.max` is a tensor on the CPU.
    return ops.maximum(ops.max(rows, axis=0, keepdims=True), 1.0)


def center(
    rows: Tensor, mask: Tensor | None = None, replicas: Replicas | None = None
) -> Tensor:
    """Subtract each channel's mean over the rows. Arguments as in `standardize`."""
    # Rounding makes the mean of equal numbers differ from them, and `standardize` would
    # amplify that difference. Subtracting one row first makes constant channels 0.
    if replicas is not None:
        # The replicas share no row. The rounded mean is close enough: the second
        # subtraction removes the rest.
        one = mean_of_rows(rows, mask, replicas)
    elif mask is not None and len(mask.shape) == 2:
        first = ops.argmax(ops.cast(mask, "int32"), axis=0)[None]  # (1, c)
        one = ops.take_along_axis(rows, first, axis=0)
    elif mask is not None:
        one = ops.take(rows, ops.argmax(ops.cast(mask, "int32")), axis=0)[None]
    else:
        one = rows[:1]
    rows = keep_rows(rows, mask) - ops.stop_gradient(one)
    return keep_rows(rows - mean_of_rows(rows, mask, replicas), mask)


@shared
def normalize(rows: Tensor) -> Tensor:
    """Scale each row to unit L2 length. A row of zeros stays zero.

    Args:
        rows: Tensor `(n, c)`.

    Returns:
        Tensor `(n, c)`, float32. The gradient of a zero row is zero.

    Raises:
        ValueError: If the rank is not 2, or there are no rows or no channels.
    """
    rows = as_floats(rows)
    check_not_empty(rows)
    # With a largest entry of 1, squares neither overflow nor underflow to 0.
    rows = divide_by_largest(rows, axis=1)
    squares = ops.sum(ops.square(rows), axis=1, keepdims=True)
    is_zero = ops.equal(squares, 0.0)  # (n, 1)
    lengths = ops.sqrt(ops.where(is_zero, 1.0, squares))
    return ops.where(is_zero, 0.0, rows / lengths)


def divide_by_largest(
    values: Tensor, axis: int | tuple[int, ...] | None = None
) -> Tensor:
    """Divide by the largest absolute value along `axis`, so that squares fit float32.

    Use it where the scale cancels out later: the divisor is treated as a constant.
    Zeros stay zero.
    """
    largest = ops.max(ops.abs(ops.stop_gradient(values)), axis=axis, keepdims=True)
    return values / ops.where(ops.equal(largest, 0.0), 1.0, largest)
