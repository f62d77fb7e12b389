"""Soft targets in two separately weighted parts: true class and other classes."""

from keras import ops

from keras_dskd.internal.types import Replicas, Tensor
from keras_dskd.ops.checks import as_floats
from keras_dskd.ops.labels import check_ignore_class, class_indices, is_class
from keras_dskd.ops.paired_logits import as_paired_logits
from keras_dskd.ops.samples import all_reduce_sum, weighted_mean
from keras_dskd.ops.soft_targets import (
    MASKED_LOGIT,
    check_divergence_temperature,
    relative_entropy,
)


def decoupled_distillation(
    teacher_logits: Tensor,
    student_logits: Tensor,
    labels: Tensor,
    temperature: float = 4.0,
    target_weight: float = 1.0,
    non_target_weight: float = 8.0,
    sample_weight: Tensor | None = None,
    ignore_class: int | None = None,
    replicas: Replicas | None = None,
) -> Tensor:
    """Soft targets with separate weights for the true class and the other classes.

    Formula: with `p` and `q` the softened distributions of teacher and student, `y`
    the true class, and `p'` and `q'` the distributions over the other classes,

    ```
    T² (a KL([p_y, 1 - p_y] || [q_y, 1 - q_y]) + b KL(p' || q'))
    ```

    `soft_targets` is the case `a = 1`, `b = 1 - p_y` for each sample: the more certain
    the teacher is, the less weight the other classes have. Nothing is detached here.

    Args:
        teacher_logits: Tensor `(n, ..., classes)`, before the softmax.
        student_logits: Tensor of the same shape.
        labels: Class indices `(n, ...)`, or one-hot labels `(n, ..., classes)`.
        temperature: `T`, between 1e-6 and 1000.
        target_weight: `a`, at least 0.
        non_target_weight: `b`, at least 0.
        sample_weight: Tensor `(n,)`, or weights along the axes of the class indices.
            See `weighted_mean`.
        ignore_class: Label of samples or positions to leave out, such as 255. The mean
            is over the others, as with `ignore_class` of Keras's
            `SparseCategoricalCrossentropy`. The result is 0 if none is left.
        replicas: Collective operations, if the samples are one replica's part of the
            batch. Only `ignore_class` needs them.

    Returns:
        Scalar, float32, at least 0.

    Raises:
        ValueError: If shapes differ or `temperature` is out of range.

    Source:
        Zhao et al. 2022 (arXiv 2203.08679), equation 7. The defaults 1 and 8 at T = 4
        are those of its CIFAR-100 experiments.
    """
    check_divergence_temperature(temperature)
    check_ignore_class(ignore_class)
    teacher_logits, student_logits = as_paired_logits(teacher_logits, student_logits)
    labels = class_indices(labels, len(student_logits.shape) - 1)
    is_target = is_class(labels, student_logits.shape[-1])  # (n, ..., classes)
    binary, others = [], []
    for logits in (teacher_logits, student_logits):
        logs = ops.log_softmax(logits / temperature, axis=-1)
        masked = ops.full_like(logs, MASKED_LOGIT)  # A number takes Keras's `floatx`.
        target = ops.sum(ops.where(is_target, logs, 0.0), axis=-1)
        rest = ops.logsumexp(ops.where(is_target, masked, logs), axis=-1)
        binary.append(ops.stack([target, rest], axis=-1))  # (n, ..., 2)
        # Dividing by the other classes' total probability normalizes over them.
        others.append(
            ops.where(is_target, masked, logs - ops.expand_dims(rest, -1))
        )  # (n, ..., classes)
    divergence = target_weight * relative_entropy(
        *binary
    ) + non_target_weight * relative_entropy(*others)
    if ignore_class is not None:
        is_kept = ops.not_equal(labels, ignore_class)
        divergence = ops.where(is_kept, divergence, 0.0) * _scale(
            is_kept, sample_weight, replicas
        )
    return temperature**2 * weighted_mean(divergence, sample_weight)


def _scale(
    is_kept: Tensor, sample_weight: Tensor | None, replicas: Replicas | None
) -> Tensor:
    """Factor that turns a mean over all values into the mean over the kept ones.

    Values of weight 0, such as those of samples without a teacher, are left out of both
    counts.
    """
    is_kept = ops.cast(is_kept, "float32")
    counted = ops.ones_like(is_kept)
    if sample_weight is not None:
        weight = as_floats(sample_weight, "sample_weight")
        rank, weight_rank = len(is_kept.shape), len(weight.shape)
        weight = ops.sum(ops.abs(weight), axis=tuple(range(rank, weight_rank)))
        for _ in range(rank - weight_rank):
            weight = ops.expand_dims(weight, -1)
        counted = counted * ops.cast(weight > 0, "float32")
    total = all_reduce_sum(replicas, ops.sum(counted))
    kept = all_reduce_sum(replicas, ops.sum(counted * is_kept))
    return total / ops.maximum(kept, 1.0)
