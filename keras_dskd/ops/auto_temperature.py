"""A temperature that fits how sure the teacher is."""

from keras import ops

from keras_dskd.internal import replicas
from keras_dskd.internal.types import Tensor
from keras_dskd.ops.paired_logits import as_paired_logits
from keras_dskd.ops.samples import aligned_weight, all_reduce_sum

#: The mean of the teacher's highest probability that soft targets should have.
CONFIDENCE = 0.6


def auto_temperature(
    teacher_logits: Tensor, sample_weight: Tensor | None = None, axis: int = -1
) -> Tensor:
    """The temperature, between 2 and 4, that fits how sure the teacher is.

    A teacher that is sure of all samples needs a high temperature: at a low one it says
    no more than the labels. For a teacher that is unsure, a high temperature makes all
    classes nearly equal, and the student learns less.

    Formula: the `T` in [2, 4] for which

    ```
    mean over samples of max softmax(teacher / T) = 0.6
    ```

    It is 4 if the teacher is surer than that even at 4, and 2 if it is less sure even
    at 2. The mean is computed at 2, 2√2 and 4, and interpolated linearly in `log T`.
    Nothing is differentiated.

    Args:
        teacher_logits: Tensor `(n, ..., classes)`, before the softmax.
        sample_weight: Tensor `(n,)`, or weights along the first axes without the
            classes. Values whose weight is 0 do not count, and all others count the
            same. If all weights are 0, the result is 4.
        axis: Axis of the classes.

    Returns:
        Scalar, float32. Under `tf.distribute` and `torch.distributed`, the mean is over
        the samples of all replicas.

    Raises:
        ValueError: If there is no sample, there are fewer than two classes, or `axis`
            does not exist.

    Source:
        Our own rule. `examples/benchmarks/tables/choice.md` compares it with a fixed
        temperature of 4.
    """
    logits, _ = as_paired_logits(teacher_logits, teacher_logits, axis)
    return measured(logits, sample_weight)


def measured(logits: Tensor, sample_weight: Tensor | None) -> Tensor:
    """See `auto_temperature`. The last axis has the classes."""
    logits = ops.stop_gradient(logits)
    below = logits - ops.max(logits, axis=-1, keepdims=True)
    at_4 = ops.exp(below / 4.0)
    # e^(x / T) at 2, 2√2 and 4.
    exponentials = (at_4 * at_4, ops.exp(below / (2 * 2**0.5)), at_4)
    surest = 1.0 / ops.stack([ops.sum(each, axis=-1) for each in exponentials])
    # (3, n, ...)
    axes, together = tuple(range(1, len(surest.shape))), replicas.current()
    if sample_weight is None and together is None:
        return _interpolated(ops.mean(surest, axis=axes))
    is_counted = ops.ones_like(surest[0])
    if sample_weight is not None:
        weight = aligned_weight(surest[0], sample_weight)
        is_counted = is_counted * ops.cast(weight > 0, "float32")
    totals = ops.sum(ops.where(is_counted > 0, surest, 0.0), axis=axes)
    sums = ops.concatenate([totals, ops.reshape(ops.sum(is_counted), (1,))])
    sums = ops.stop_gradient(all_reduce_sum(together, sums))
    # Without samples, as if the teacher were sure.
    confidences = ops.where(sums[-1] > 0, sums[:-1] / ops.maximum(sums[-1], 1.0), 1.0)
    return _interpolated(confidences)


def _interpolated(confidences: Tensor) -> Tensor:
    """The temperature at which the confidence, which falls with it, is `CONFIDENCE`."""
    above, below = confidences[:-1], confidences[1:]
    # The share of each interval in which the teacher is too sure.
    shares = (above - CONFIDENCE) / ops.maximum(above - below, 1e-7)
    return 2.0 ** (1.0 + 0.5 * ops.sum(ops.clip(shares, 0.0, 1.0)))
