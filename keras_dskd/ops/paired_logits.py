"""Logits of two models over the same classes."""

from keras import ops

from keras_dskd.internal.types import Nested, Tensor
from keras_dskd.ops.checks import as_floats, is_same_shape


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
