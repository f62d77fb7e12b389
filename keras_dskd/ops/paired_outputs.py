"""Outputs of two models, and labels, in one shape."""

from keras import ops

from keras_dskd.internal.types import Nested, Tensor
from keras_dskd.ops.checks import as_floats, is_same_shape


def as_paired_outputs(
    teacher: Nested, student: Nested, names: tuple[str, str]
) -> tuple[Tensor, Tensor]:
    """Convert both to float32 and to one shape.

    An array without a last axis of length 1 gets it: `(n,)` becomes `(n, 1)`, so that
    arithmetic never broadcasts it to `(n, n)`.

    Args:
        teacher: Array `(n,)` or `(n, ..., values)`.
        student: Array of the same shape, up to a last axis of length 1.
        names: Names of both for error messages.

    Returns:
        Tensors `(n, ..., values)` of the same shape, of rank 2 or higher.

    Raises:
        ValueError: If the shapes differ otherwise, or an array is empty.
    """
    first, second = as_floats(teacher, names[0]), as_floats(student, names[1])
    shapes = tuple(first.shape), tuple(second.shape)
    rank = max(2, *map(len, shapes))
    first, second = _with_last_axis(first, rank), _with_last_axis(second, rank)
    received = f"{names[0]}.shape={shapes[0]}, {names[1]}.shape={shapes[1]}"
    if () in shapes or not is_same_shape(first.shape, second.shape):
        raise ValueError(
            f"`{names[0]}` and `{names[1]}` must have the same shape (n, ..., values). "
            f"Received: {received}"
        )
    if any(0 in shape for shape in shapes):
        raise ValueError(
            f"Expected at least one sample and one value. Received: {received}"
        )
    return first, second


def _with_last_axis(values: Tensor, rank: int) -> Tensor:
    return ops.expand_dims(values, -1) if len(values.shape) == rank - 1 else values
