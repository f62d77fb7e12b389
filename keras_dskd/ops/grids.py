"""Feature maps of two models on one grid of positions."""

from keras import ops

from keras_dskd.internal.types import Tensor
from keras_dskd.ops.checks import as_floats, is_same_shape
from keras_dskd.ops.rows import channel_axis


def channels_last(feature: Tensor, name: str = "feature") -> Tensor:
    """Convert a feature map to float32 with its channels on the last axis.

    Args:
        feature: Tensor `(n, ..., c)`, in Keras's image data format.
        name: Name for error messages.

    Returns:
        Tensor `(n, ..., c)`.

    Raises:
        ValueError: If it has no positions.
    """
    feature = as_floats(feature, name)
    shape = tuple(feature.shape)
    if len(shape) < 3 or 0 in shape[1:]:
        raise ValueError(
            "Expected a feature map (n, ..., c), with at least one position and one "
            f"channel. Received: {name}.shape={shape}"
        )
    return ops.moveaxis(feature, channel_axis(len(shape)), -1)


def check_same_samples(teacher_map: Tensor, student_map: Tensor) -> None:
    """Raise `ValueError` if the numbers of samples differ."""
    shapes = tuple(teacher_map.shape), tuple(student_map.shape)
    if not is_same_shape(shapes[0][:1], shapes[1][:1]):
        raise ValueError(
            "Teacher and student features must come from the same samples. Received: "
            f"feature maps of shapes {shapes[0]} and {shapes[1]} (channels last)"
        )


def on_one_grid(teacher_map: Tensor, student_map: Tensor) -> tuple[Tensor, Tensor]:
    """Give both feature maps the same positions, by averaging blocks of the finer one.

    Each axis is averaged separately: either map can be the finer one.

    Args:
        teacher_map: Tensor `(n, ..., c_teacher)`, channels last.
        student_map: Tensor `(n, ..., c_student)` of the same rank.

    Returns:
        Both feature maps.

    Raises:
        ValueError: If along an axis neither length is a multiple of the other, or the
            numbers of samples differ.
    """
    check_same_samples(teacher_map, student_map)
    grids = tuple(teacher_map.shape)[1:-1], tuple(student_map.shape)[1:-1]
    if grids[0] == grids[1]:
        return teacher_map, student_map
    if len(grids[0]) != len(grids[1]) or any(
        None in lengths or max(lengths) % min(lengths)
        for lengths in zip(*grids, strict=True)
    ):
        raise ValueError(
            "To compare feature maps by position, the length of each axis in one must "
            "be a multiple of its length in the other. Received grids of "
            f"{grids[0]} positions from the teacher and {grids[1]} from the student"
        )
    coarse = tuple(map(min, *grids))
    return _block_means(teacher_map, coarse), _block_means(student_map, coarse)


def position_mask(mask: Tensor | None, feature: Tensor) -> Tensor | None:
    """Repeat a mask of samples `(n,)` for each position of a channels-last feature."""
    if mask is None:
        return None
    positions = ops.ones_like(feature[..., 0], dtype="bool")  # (n, ...)
    mask = ops.cast(mask, "bool")
    mask = ops.reshape(mask, (-1,) + (1,) * (len(positions.shape) - 1))
    return ops.reshape(ops.logical_and(positions, mask), (-1,))


def _block_means(feature: Tensor, coarse: tuple[int, ...]) -> Tensor:
    fine = tuple(feature.shape)[1:-1]
    if fine == coarse:
        return feature
    split = [-1]
    for length, count in zip(fine, coarse, strict=True):
        split += [count, length // count]
    blocks = ops.reshape(feature, (*split, feature.shape[-1]))
    return ops.mean(blocks, axis=tuple(range(2, len(split), 2)))
