"""Compare softened class distributions."""

from typing import Literal

from keras import ops

from keras_dskd.internal.schedules import check_temperature_word
from keras_dskd.internal.types import Tensor
from keras_dskd.ops.auto_temperature import measured
from keras_dskd.ops.checks import check_temperature
from keras_dskd.ops.paired_logits import as_paired_logits
from keras_dskd.ops.samples import weighted_mean

#: Above this temperature, rounding changes the third digit of the loss.
MAX_TEMPERATURE = 1000
#: Stands for logits left out of a softmax. It is finite: gradients are 0, not NaN.
MASKED_LOGIT = -1e30


def soft_targets(
    teacher_logits: Tensor,
    student_logits: Tensor,
    temperature: float | Literal["auto"] = 4.0,
    sample_weight: Tensor | None = None,
    axis: int = -1,
) -> Tensor:
    """KL divergence of the student's softened class distribution from the teacher's.

    Formula:

    ```
    T² KL(softmax(teacher / T) || softmax(student / T))
    ```

    in nats, averaged over the batch and any further axes. The factor T² keeps
    the size of the gradient independent of T. Nothing is detached here.

    Args:
        teacher_logits: Tensor `(n, ..., classes)`, before the softmax.
        student_logits: Tensor of the same shape.
        temperature: `T`, between 1e-6 and 1000. A higher value gives small
            probabilities more influence. `"auto"` is the result of
            `keras_dskd.ops.auto_temperature`.
        sample_weight: Tensor `(n,)`, or weights along the first axes without the
            classes, multiplied with each divergence before averaging. See
            `weighted_mean`.
        axis: Axis of the classes, such as 1 for feature maps `(n, classes, ...)`.

    Returns:
        Scalar, float32, at least 0.

    Raises:
        ValueError: If the shapes differ, there are fewer than two classes, `axis` does
            not exist, or `temperature` is out of range.

    Source:
        Hinton, Vinyals and Dean 2015 (arXiv 1503.02531), section 2.
    """
    if isinstance(temperature, str):
        check_temperature_word(temperature)
    else:
        check_divergence_temperature(temperature)
    teacher_logits, student_logits = as_paired_logits(
        teacher_logits, student_logits, axis
    )
    t: Tensor = temperature
    if isinstance(temperature, str):
        t = measured(teacher_logits, sample_weight)
    divergence = relative_entropy(
        ops.log_softmax(teacher_logits / t, axis=-1),
        ops.log_softmax(student_logits / t, axis=-1),
    )  # (n, ...)
    return t**2 * weighted_mean(divergence, sample_weight)


def relative_entropy(teacher: Tensor, student: Tensor) -> Tensor:
    """`KL(p || q)` over the last axis, from log-probabilities `(..., classes)`."""
    # `Σ p (d + exp(-d) - 1)` equals `Σ p d`, because p and q both sum to 1. It stays
    # accurate where a high temperature makes d small.
    d = teacher - student
    is_small = ops.abs(d) < 0.5
    small = ops.where(is_small, d, 0.0)
    p = ops.exp(teacher)
    return ops.sum(
        ops.where(
            is_small, p * (ops.expm1(-small) + small), p * d + ops.exp(student) - p
        ),
        axis=-1,
    )


def check_divergence_temperature(temperature: float) -> None:
    """Raise `ValueError` unless `temperature` is between 1e-6 and 1000."""
    check_temperature(temperature)
    if not ops.is_tensor(temperature) and temperature > MAX_TEMPERATURE:
        raise ValueError(
            f"`temperature` must be at most {MAX_TEMPERATURE} for soft targets: "
            "above it, float32 rounding hides the differences. Received: "
            f"temperature={temperature}"
        )
