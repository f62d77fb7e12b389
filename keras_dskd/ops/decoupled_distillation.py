"""Decoupled distillation: soft targets in two parts, each with a weight."""

from keras import ops

from keras_dskd.internal.types import Tensor
from keras_dskd.ops.checks import as_floats
from keras_dskd.ops.labels import class_numbers
from keras_dskd.ops.samples import weighted_mean
from keras_dskd.ops.soft_targets import (
    check_divergence_temperature,
    check_logits,
    relative_entropy,
)

# Less than any logit, and still a number: exp gives 0, and no gradient.
_NEVER = -1e30


def decoupled_distillation(
    teacher_logits: Tensor,
    student_logits: Tensor,
    labels: Tensor,
    temperature: float = 4.0,
    target_weight: float = 1.0,
    non_target_weight: float = 8.0,
    sample_weight: Tensor | None = None,
) -> Tensor:
    """Soft targets, with the true class and the others compared apart.

    Formula: with `p` and `q` the softened distributions of teacher and student, `y`
    the true class, and `p'`, `q'` those over the other classes alone,

    ```
    T² (a KL([p_y, 1 - p_y] || [q_y, 1 - q_y]) + b KL(p' || q'))
    ```

    Soft targets are this with `a = 1` and `b = 1 - p_y`, sample by sample: where the
    teacher is sure, they hardly say how the other classes compare.

    Args:
        teacher_logits: Tensor `(n, ..., classes)`, before the softmax.
        student_logits: Tensor of the same shape.
        labels: Class numbers `(n, ...)`, or one-hot.
        temperature: `T`, positive, at most 1000.
        target_weight: `a`, not negative.
        non_target_weight: `b`, not negative.
        sample_weight: Tensor `(n,)`. See `weighted_mean`.

    Returns:
        Scalar, float32, at least 0.

    Raises:
        ValueError: If shapes differ or an argument is out of its range.

    Source:
        Zhao et al. 2022 (arXiv 2203.08679), equation 7; 1 and 8 at T = 4 are the
        weights of its CIFAR-100 experiments.
    """
    check_divergence_temperature(temperature)
    teacher_logits = as_floats(teacher_logits, "teacher_logits")
    student_logits = as_floats(student_logits, "student_logits")
    check_logits(teacher_logits, student_logits)
    labels = class_numbers(labels, len(student_logits.shape) - 1)
    classes = student_logits.shape[-1]
    is_target = ops.equal(
        ops.expand_dims(labels, -1), ops.arange(classes, dtype="int32")
    )  # (n, ..., classes)
    binary, others = [], []
    for logits in (teacher_logits, student_logits):
        logs = ops.log_softmax(logits / temperature, axis=-1)
        target = ops.sum(ops.where(is_target, logs, 0.0), axis=-1)
        rest = ops.logsumexp(ops.where(is_target, _NEVER, logs), axis=-1)
        binary.append(ops.stack([target, rest], axis=-1))  # (n, ..., 2)
        # Less their sum, the others' probabilities are those among themselves.
        others.append(
            ops.where(is_target, _NEVER, logs - ops.expand_dims(rest, -1))
        )  # (n, ..., classes)
    divergence = target_weight * relative_entropy(
        *binary
    ) + non_target_weight * relative_entropy(*others)
    return temperature**2 * weighted_mean(divergence, sample_weight)
