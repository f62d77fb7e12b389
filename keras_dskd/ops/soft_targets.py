"""Compare softened class distributions."""

from keras import ops

from keras_dskd.internal.types import Nested, Tensor
from keras_dskd.ops.checks import as_floats, check_temperature, is_same_shape
from keras_dskd.ops.samples import weighted_mean

#: Above this temperature, rounding changes the third digit of the loss.
MAX_TEMPERATURE = 1000
#: Stands for logits left out of a softmax. It is finite: gradients are 0, not NaN.
MASKED_LOGIT = -1e30


def soft_targets(
    teacher_logits: Tensor,
    student_logits: Tensor,
    temperature: float = 4.0,
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
            probabilities more influence.
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
    check_divergence_temperature(temperature)
    teacher_logits, student_logits = as_paired_logits(
        teacher_logits, student_logits, axis
    )
    divergence = relative_entropy(
        ops.log_softmax(teacher_logits / temperature, axis=-1),
        ops.log_softmax(student_logits / temperature, axis=-1),
    )  # (n, ...)
    return temperature**2 * weighted_mean(divergence, sample_weight)


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


def check_class_axis(axis: object) -> None:
    """Raise `ValueError` unless `axis` is an integer other than 0."""
    if isinstance(axis, bool) or not isinstance(axis, int) or axis == 0:
        raise ValueError(
            "`axis` must be an integer other than 0, the axis of the samples. "
            f"Received: axis={axis!r}"
        )


def as_paired_logits(
    teacher_logits: Nested, student_logits: Nested, axis: int = -1
) -> tuple[Tensor, Tensor]:
    """Convert both to float32, and check that they are logits over the same classes.

    The axis of the classes becomes the last one.
    """
    check_class_axis(axis)
    teacher_logits = as_floats(teacher_logits, "teacher_logits")
    student_logits = as_floats(student_logits, "student_logits")
    shape, student_shape = tuple(teacher_logits.shape), tuple(student_logits.shape)
    received = f"teacher_logits.shape={shape}, student_logits.shape={student_shape}"
    if not is_same_shape(shape, student_shape):
        raise ValueError(
            "Teacher and student logits must have the same shape (n, ..., classes). "
            f"Received: {received}. If their classes differ, use losses on features "
            "instead, such as ChannelAlignment."
        )
    rank = len(shape)
    if rank > 1 and not (1 <= axis < rank or -rank < axis <= -1):
        raise ValueError(
            f"Logits of rank {rank} have no axis of classes {axis}. Received: "
            f"axis={axis}, {received}"
        )
    if rank < 2 or shape[axis] in (0, 1):
        raise ValueError(
            "Soft targets compare distributions over at least 2 classes. Received: "
            f"{received}. For a single sigmoid output, use "
            "`keras_dskd.losses.BinarySoftTargets`."
        )
    if 0 in shape:
        raise ValueError(f"Expected at least one sample. Received: {received}")
    return ops.moveaxis(teacher_logits, axis, -1), ops.moveaxis(
        student_logits, axis, -1
    )
