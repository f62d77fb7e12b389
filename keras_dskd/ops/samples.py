"""Which samples count, and how much."""

from keras import ops

from keras_dskd.internal.types import Replicas, Tensor
from keras_dskd.ops.checks import as_floats


def keep_rows(values: Tensor, mask: Tensor | None) -> Tensor:
    """Sets to 0 what belongs to rows that are not there, even where it is NaN.

    Args:
        values: Tensor `(n, ...)`.
        mask: Bool tensor `(n,)`, or `None`: all are there.

    Returns:
        Tensor of the shape of `values`.
    """
    if mask is None:
        return values
    values, mask = ops.convert_to_tensor(values), ops.convert_to_tensor(mask)
    if not values.shape or (
        None not in (values.shape[0], mask.shape[0])
        and values.shape[0] != mask.shape[0]
    ):
        raise ValueError(
            "Where samples are left out, a feature has one row a sample. Received: "
            f"feature.shape={tuple(values.shape)} and a mask of {mask.shape[0]} samples"
        )
    mask = ops.reshape(mask, (-1,) + (1,) * (len(values.shape) - 1))
    return ops.where(ops.cast(mask, "bool"), values, ops.zeros_like(values))


def count_rows(
    rows: Tensor, mask: Tensor | None = None, replicas: Replicas | None = None
) -> Tensor:
    """Number of rows, or of those that the mask keeps: a float32 scalar."""
    if mask is None:
        count = ops.cast(ops.shape(rows)[0], "float32")
    else:
        count = ops.sum(ops.cast(mask, "float32"))
    return over(replicas, count)


def mean_of_rows(
    rows: Tensor, mask: Tensor | None = None, replicas: Replicas | None = None
) -> Tensor:
    """Mean over the rows that the mask keeps, `(1, c)`; 0 where it keeps none."""
    if mask is None and replicas is None:
        return ops.mean(rows, axis=0, keepdims=True)
    total = ops.sum(keep_rows(rows, mask), axis=0, keepdims=True)  # (1, c)
    count = ops.reshape(count_rows(rows, mask), (1, 1))
    if replicas is not None:  # One sum for both: what costs is their number.
        both = replicas.sum(ops.concatenate([total, count], axis=1))
        total, count = both[:, :-1], both[:, -1:]
    return total / ops.maximum(count, 1.0)


def over(replicas: Replicas | None, part: Tensor) -> Tensor:
    """The sum of the parts that replicas hold, on each of them.

    Args:
        replicas: What sums and gathers over the replicas of a step, as
            `internal.replicas.current` gives it, or `None`: there are no others.
        part: Tensor, of the same shape on all.

    Returns:
        Tensor of that shape, through which gradients flow back to all parts.
    """
    return part if replicas is None else replicas.sum(part)


def weighted_mean(values: Tensor, sample_weight: Tensor | None = None) -> Tensor:
    """Mean of values, each times its sample's weight.

    Formula:

    ```
    Σ_i w_i v_i / n
    ```

    as Keras's losses weigh samples.

    Args:
        values: Tensor `(n, ...)`.
        sample_weight: Tensor `(n,)`, or `(n, ...)` with a weight for each of some
            further axes; their mean counts where `values` lack these axes. `None`
            for 1 each.

    Returns:
        Scalar, float32.
    """
    values = as_floats(values, "values")
    if sample_weight is None:
        return ops.mean(values)
    weight = sample_weight = as_floats(sample_weight, "sample_weight")
    rank = len(values.shape)
    if len(weight.shape) > rank:
        weight = ops.mean(weight, axis=tuple(range(rank, len(weight.shape))))
    shapes = tuple(values.shape), tuple(weight.shape)
    if any(
        None not in (v, w) and w != v and (axis == 0 or w != 1)
        for axis, (v, w) in enumerate(zip(*shapes, strict=False))
    ):
        raise ValueError(
            "`sample_weight` holds one weight a sample, or one for each of further "
            f"axes. Received: sample_weight.shape={tuple(sample_weight.shape)} for "
            f"values of shape {shapes[0]}"
        )
    for _ in range(rank - len(weight.shape)):
        weight = ops.expand_dims(weight, -1)
    return ops.mean(values * weight)
