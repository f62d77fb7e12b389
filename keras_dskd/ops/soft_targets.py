"""Soft targets: the teacher's class distribution, softened."""

from keras import ops

from keras_dskd.internal.types import Tensor
from keras_dskd.ops.checks import as_floats, check_temperature
from keras_dskd.ops.samples import weighted_mean

#: Beyond, rounding would show in the third digit.
MAX_TEMPERATURE = 1000


def soft_targets(
    teacher_logits: Tensor,
    student_logits: Tensor,
    temperature: float = 4.0,
    sample_weight: Tensor | None = None,
) -> Tensor:
    """Divergence of the student's softened class distribution from the teacher's.

    Formula:

    ```
    T² KL(softmax(teacher / T) || softmax(student / T))
    ```

    in nats, averaged over the batch and any further leading axes. The factor T²
    keeps the gradient's size independent of T. Nothing is detached here.

    Args:
        teacher_logits: Tensor `(n, ..., classes)`, before the softmax.
        student_logits: Tensor of the same shape.
        temperature: `T`, positive, at most 1000. Higher shows more of the small
            probabilities.
        sample_weight: Tensor `(n,)`: the mean is that of each sample's divergence
            times its weight. See `weighted_mean`.

    Returns:
        Scalar, float32, at least 0.

    Raises:
        ValueError: If the shapes differ, there are fewer than two classes, or
            `temperature` is not positive.

    Source:
        Hinton, Vinyals and Dean 2015 (arXiv 1503.02531), section 2.
    """
    check_divergence_temperature(temperature)
    teacher_logits = as_floats(teacher_logits, "teacher_logits")
    student_logits = as_floats(student_logits, "student_logits")
    check_logits(teacher_logits, student_logits)
    divergence = relative_entropy(
        ops.log_softmax(teacher_logits / temperature, axis=-1),
        ops.log_softmax(student_logits / temperature, axis=-1),
    )  # (n, ...)
    return temperature**2 * weighted_mean(divergence, sample_weight)


def relative_entropy(teacher: Tensor, student: Tensor) -> Tensor:
    """`KL(p || q)` over the last axis, from log-probabilities `(..., classes)`."""
    # Σ p (d + exp(-d) - 1) is Σ p d, since p and q both sum to 1, and where the
    # temperature makes d small it loses nothing to rounding.
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
    """Raises `ValueError` unless float32 shows differences at that temperature."""
    check_temperature(temperature)
    if temperature > MAX_TEMPERATURE:
        raise ValueError(
            f"Soft targets at a temperature above {MAX_TEMPERATURE} are lost in the "
            f"rounding of float32. Received: temperature={temperature}"
        )


def check_logits(teacher_logits: Tensor, student_logits: Tensor) -> None:
    """Raises `ValueError` unless both hold logits over the same classes."""
    shapes = tuple(teacher_logits.shape), tuple(student_logits.shape)
    received = f"teacher_logits.shape={shapes[0]}, student_logits.shape={shapes[1]}"
    fits = len(shapes[0]) == len(shapes[1]) and all(
        None in (t, s) or t == s for t, s in zip(*shapes, strict=True)
    )
    if not fits:
        raise ValueError(
            "Teacher and student logits must have the same shape (n, ..., classes). "
            f"Received: {received}"
        )
    if 0 in shapes[0][:-1]:
        raise ValueError(f"Expected at least one sample. Received: {received}")
    if len(shapes[0]) < 2 or shapes[0][-1] in (0, 1):
        raise ValueError(
            "Soft targets compare distributions over at least 2 classes. Received: "
            f"{received}. For a single sigmoid output, give the model two logits."
        )
