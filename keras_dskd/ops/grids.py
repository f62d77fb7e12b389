"""Feature maps of two models on one grid of positions."""

from keras import ops

from keras_dskd.internal.types import Shape, Tensor
from keras_dskd.ops.checks import as_floats, is_same_shape
from keras_dskd.ops.rows import channel_axis
from keras_dskd.ops.step_masks import all_of, fitting_mask, over_positions


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


def grid(shape: Shape) -> Shape:
    """The positions along each axis of a feature of that shape."""
    channels = channel_axis(len(shape))
    return tuple(size for axis, size in enumerate(shape) if axis not in (0, channels))


def have_one_grid(teacher_grid: Shape, student_grid: Shape) -> bool:
    """Whether `on_one_grid` can give feature maps of two grids the same positions."""
    if teacher_grid == student_grid:
        return True
    if len(teacher_grid) != len(student_grid):
        return False
    lengths = zip(teacher_grid, student_grid, strict=True)
    return all(a and b and max(a, b) % min(a, b) == 0 for a, b in lengths)


def on_one_grid(
    teacher_map: Tensor,
    student_map: Tensor,
    teacher_step_mask: Tensor | None = None,
    student_step_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Give both feature maps the same positions, by averaging blocks of the finer one.

    Each axis is averaged separately: either map can be the finer one.

    Args:
        teacher_map: Tensor `(n, ..., c_teacher)`, channels last.
        student_map: Tensor `(n, ..., c_student)` of the same rank.
        teacher_step_mask: Bool tensor `(n, steps)`, or `None`. Blocks are averaged over
            the real steps.
        student_step_mask: The same for the student.

    Returns:
        Both feature maps, and a bool tensor `(n, ...)`, true for the positions that
        have a real step on both sides; `None` without masks.

    Raises:
        ValueError: If along an axis neither length is a multiple of the other, the
            numbers of samples differ, or a mask does not fit its feature map.
    """
    check_same_samples(teacher_map, student_map)
    masks = [
        _as_map(teacher_map, teacher_step_mask),
        _as_map(student_map, student_step_mask),
    ]
    grids = tuple(teacher_map.shape)[1:-1], tuple(student_map.shape)[1:-1]
    if grids[0] == grids[1]:
        return teacher_map, student_map, _kept(masks)
    if not have_one_grid(*grids):
        raise ValueError(
            "To compare feature maps by position, the length of each axis in one must "
            "be a multiple of its length in the other. Received grids of "
            f"{grids[0]} positions from the teacher and {grids[1]} from the student"
        )
    coarse = tuple(map(min, *grids))
    maps = [
        _masked_block_means(feature, mask, coarse)
        for feature, mask in zip((teacher_map, student_map), masks, strict=True)
    ]
    shares = [None if mask is None else _block_means(mask, coarse) for mask in masks]
    return maps[0], maps[1], _kept(shares)


def _as_map(feature: Tensor, step_mask: Tensor | None) -> Tensor | None:
    """The mask as a feature map with one channel: `(n, ..., 1)`, 1 for real steps."""
    mask = fitting_mask(feature, step_mask)
    if mask is None:
        return None
    return ops.cast(over_positions(mask, feature), "float32")[..., None]


def _kept(shares: list[Tensor | None]) -> Tensor | None:
    """Where each share of real steps, `(n, ..., 1)`, is above 0."""
    return all_of(*(None if share is None else share[..., 0] > 0 for share in shares))


def _masked_block_means(
    feature: Tensor, mask: Tensor | None, coarse: tuple[int, ...]
) -> Tensor:
    if mask is None:
        return _block_means(feature, coarse)
    means = _block_means(ops.where(mask > 0, feature, 0.0), coarse)
    share = _block_means(mask, coarse)
    return means / ops.where(share > 0, share, 1.0)


def _block_means(feature: Tensor, coarse: tuple[int, ...]) -> Tensor:
    fine = tuple(feature.shape)[1:-1]
    if fine == coarse:
        return feature
    split = [-1]
    for length, count in zip(fine, coarse, strict=True):
        split += [count, length // count]
    blocks = ops.reshape(feature, (*split, feature.shape[-1]))
    return ops.mean(blocks, axis=tuple(range(2, len(split), 2)))
