"""Sums and means over samples: masked, weighted, and across replicas."""

from keras import ops

from keras_dskd.internal.types import Replicas, Tensor
from keras_dskd.ops.checks import as_floats, is_same_shape


def keep_rows(values: Tensor, mask: Tensor | None) -> Tensor:
    """Zero the masked-out rows, NaNs included.

    Args:
        values: Tensor `(n, ...)`.
        mask: Bool tensor `(n,)`, true for the rows to keep, or `(n, ...)` with further
            first axes of `values`. `None` keeps all.

    Returns:
        Tensor of the same shape as `values`.

    Raises:
        ValueError: If the numbers of rows, or further axes, differ.
    """
    if mask is None:
        return values
    values, mask = ops.convert_to_tensor(values), ops.convert_to_tensor(mask)
    axes = len(mask.shape)
    if not values.shape or not is_same_shape(values.shape[:axes], mask.shape):
        raise ValueError(
            "With a mask of samples, a feature must have one row per sample. Received: "
            f"feature.shape={tuple(values.shape)} and a mask of {mask.shape[0]} samples"
            + (f", mask.shape={tuple(mask.shape)}" if axes > 1 else "")
        )
    for _ in range(len(values.shape) - axes):
        mask = ops.expand_dims(mask, -1)
    return ops.where(ops.cast(mask, "bool"), values, ops.zeros_like(values))


def count_rows(
    rows: Tensor, mask: Tensor | None = None, replicas: Replicas | None = None
) -> Tensor:
    """Number of rows that the mask keeps, on all replicas: a float32 scalar.

    With a mask `(n, c)` of single values, it is the number in each channel, `(c,)`.
    """
    if mask is None:
        count = ops.cast(ops.shape(rows)[0], "float32")
    else:
        count = ops.sum(ops.cast(mask, "float32"), axis=0)
    return all_reduce_sum(replicas, count)


def mean_of_rows(
    rows: Tensor, mask: Tensor | None = None, replicas: Replicas | None = None
) -> Tensor:
    """Mean of the rows that the mask keeps, `(1, c)`; 0 if it keeps none."""
    if mask is None and replicas is None:
        return ops.mean(rows, axis=0, keepdims=True)
    total = ops.sum(keep_rows(rows, mask), axis=0, keepdims=True)  # (1, c)
    count = ops.reshape(count_rows(rows, mask), (1, -1))  # (1, 1) or (1, c)
    if replicas is not None:  # One message for both: latency dominates.
        both = replicas.sum(ops.concatenate([total, count], axis=1))
        total, count = both[:, : rows.shape[1]], both[:, rows.shape[1] :]
    return total / ops.maximum(count, 1.0)


def mean_over_channels(values: Tensor, count: Tensor) -> Tensor:
    """Mean of the channels' values `(1, c)`, over channels with at least two rows.

    Args:
        values: Tensor `(1, c)`.
        count: Number of rows, a scalar, or of each channel's rows, `(c,)`.

    Returns:
        Scalar; 0 if no channel has two rows.
    """
    is_counted = ops.ones_like(values) * ops.cast(count >= 2, "float32")
    total = ops.sum(ops.where(is_counted > 0, values, 0.0))
    return total / ops.maximum(ops.sum(is_counted), 1.0)


def all_reduce_sum(replicas: Replicas | None, tensor: Tensor) -> Tensor:
    """Sum a tensor across replicas; the result is the same on each.

    Args:
        replicas: Collective operations, as `internal.replicas.current` returns them.
            `None` returns the tensor unchanged.
        tensor: Tensor of the same shape on each replica.

    Returns:
        Tensor of that shape. Gradients flow back to every replica.
    """
    return tensor if replicas is None else replicas.sum(tensor)


def weighted_mean(values: Tensor, sample_weight: Tensor | None = None) -> Tensor:
    """Mean of weighted values.

    Formula:

    ```
    Σ_i w_i v_i / n
    ```

    As in Keras's losses, the sum is divided by the number of values, not by the sum of
    the weights.

    Args:
        values: Tensor `(n, ...)`.
        sample_weight: Tensor `(n,)`, or `(n, ...)` with weights along the first axes of
            `values`. If it has more axes than `values`, it is averaged over the
            additional ones. `None` gives each value the weight 1.

    Returns:
        Scalar, float32.

    Raises:
        ValueError: If the shapes do not match.
    """
    values = as_floats(values, "values")
    if sample_weight is None:
        return ops.mean(values)
    return ops.mean(values * aligned_weight(values, sample_weight))


def aligned_weight(values: Tensor, sample_weight: Tensor) -> Tensor:
    """Weights of samples or of positions, in a shape that broadcasts to the values.

    Args:
        values: Tensor `(n, ...)`.
        sample_weight: See `weighted_mean`.

    Returns:
        Tensor of the rank of `values`.

    Raises:
        ValueError: If the shapes do not match.
    """
    weight = sample_weight = as_floats(sample_weight, "sample_weight")
    rank = len(values.shape)
    if len(weight.shape) > rank:
        weight = ops.mean(weight, axis=tuple(range(rank, len(weight.shape))))
    # Axes of length 1 broadcast, except the axis of the samples.
    expected = [
        1 if axis and length == 1 else values.shape[axis]
        for axis, length in enumerate(weight.shape)
    ]
    if not is_same_shape(weight.shape, expected):
        raise ValueError(
            "Expected `sample_weight` with one weight per sample, or with further axes "
            "that match the values'. Received: "
            f"sample_weight.shape={tuple(sample_weight.shape)} for values of shape "
            f"{tuple(values.shape)}"
        )
    for _ in range(rank - len(weight.shape)):
        weight = ops.expand_dims(weight, -1)
    return weight
