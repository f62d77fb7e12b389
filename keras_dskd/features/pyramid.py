"""Feature maps by pyramid level: `"P3"` is the feature map of stride 2³.

Backbones of `keras_hub` and `keras_cv` declare their levels. In any other Functional or
Sequential model, level `"P3"` is the last feature map of its stage of stride 8.
"""

import itertools
import math
import re
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import keras

from keras_dskd.features.layer_graph import (
    Names,
    articulation_points,
    graph_layers,
    has_graph,
    layer_paths,
    output_shape,
)
from keras_dskd.internal.keras_private import origin
from keras_dskd.internal.types import Shape
from keras_dskd.ops.rows import channel_axis

Size: TypeAlias = tuple[int, ...]
#: Name of a level -> `(operation, index of its output)`.
Levels: TypeAlias = dict[str, tuple[keras.Operation, int]]

# These layers do not end a stage: they compute no new features.
_SKIPPED = (
    keras.layers.InputLayer,
    keras.layers.Dropout,
    keras.layers.ZeroPadding1D,
    keras.layers.ZeroPadding2D,
    keras.layers.ZeroPadding3D,
    keras.layers.Cropping1D,
    keras.layers.Cropping2D,
    keras.layers.Cropping3D,
)


class Stage(NamedTuple):
    """Consecutive feature maps of one size.

    Attributes:
        path: Path of the last layer or operation of the stage.
        layer: That layer or operation.
        log2_strides: Base-2 logarithm of the stride to the input, one per axis.
    """

    path: str
    layer: keras.Operation
    log2_strides: Size


def stages(model: keras.Model, encoder: bool = False) -> list[Stage]:
    """The stages of a model, in order, read off its `articulation_points`.

    Consecutive feature maps are in one stage if their sizes differ by less than a
    factor of about 1.4, because convolutions without padding cut off a margin. At least
    one layer of a stage has weights.

    Args:
        model: A Functional or Sequential model.
        encoder: Whether to look at the encoder alone. See `articulation_points`.

    Raises:
        ValueError: If the model has no feature maps, or their sizes are not known.
    """
    with_weights = {
        _size(model, path, output_shape(layer))
        for path, layer in graph_layers(model)
        if layer.weights and not isinstance(layer, keras.layers.Normalization)
    }
    maps = [
        (path, layer, size)
        for path, layer in articulation_points(model, encoder)
        if not isinstance(layer, _SKIPPED)
        and (size := _size(model, path, output_shape(layer)))
    ]
    inputs = _input_sizes(model)
    sizes = [*inputs, *(size for _, _, size in maps)]
    log2_strides = _log2_strides(sizes)[len(inputs) :]
    found = []
    pairs = zip(maps, log2_strides, strict=True)
    for _, group in itertools.groupby(pairs, lambda pair: pair[1]):
        same_stride = list(group)
        if any(size in with_weights for (_, _, size), _ in same_stride):
            (path, layer, _), strides = same_stride[-1]
            found.append(Stage(path, layer, strides))
    if not found:
        raise ValueError(
            f"{model.name!r} has no feature maps, or none that every path to its "
            "output passes."
        )
    return found


def is_level(model: keras.Model, name: str) -> bool:
    """Whether a name has the form of a level, `P` and a number, or is declared."""
    return bool(re.fullmatch(r"P\d+", name)) or any(
        name in declared_levels(backbone) for _, backbone in backbones(model)
    )


def find_level(model: keras.Model, name: str) -> tuple[keras.Operation, int]:
    """The output at a pyramid level, as `(operation, index of its output)`.

    If the model holds backbones that declare levels, only those count.

    Raises:
        ValueError: If none or several of the backbones have the level, or the graph
            does not show the levels.
    """
    found = backbones(model) or [((), model)]
    levels_of = {path: levels(backbone) for path, backbone in found}
    paths = {
        path: f'"{"/".join([*path, level])}"'
        for path, of_backbone in levels_of.items()
        for level in of_backbone
        if level == name
    }
    if len(paths) > 1:
        raise ValueError(
            f"{len(paths)} backbones have this level. Use a path: "
            f"{', '.join(paths.values())}."
        )
    if not paths:
        existing = [
            f'"{"/".join([*path, level])}"'
            for path, of_backbone in levels_of.items()
            for level in of_backbone
        ]
        raise ValueError(
            f"Its pyramid levels are: {', '.join(existing)}."
            if existing
            else "It has no pyramid levels. Name a layer instead."
        )
    return levels_of[next(iter(paths))][name]


def levels(model: keras.Model) -> Levels:
    """The pyramid levels of a model.

    These are the levels that the model declares, or else the ends of its stages, named
    by their strides.

    Returns:
        A dict that maps each level's name to `(operation, index)`. The index counts the
        operation's outputs, flattened.

    Raises:
        ValueError: If the graph does not show the levels, with the reason.
    """
    declared = declared_levels(model)
    if declared:
        made_by = {name: origin(tensor) for name, tensor in declared.items()}
        return {name: (made[0], made[2]) for name, made in made_by.items()}
    sizes = _input_sizes(model) if has_graph(model) else set()
    by_stride: dict[Size, Stage] = {}
    for stage in stages(model):
        if {len(stage.log2_strides)} != {len(size) for size in sizes}:
            continue  # A sequence of tokens in an image model.
        if stage.log2_strides in by_stride:
            raise ValueError(
                f"Two stages of {model.name!r} have the same size: they end in "
                f'"{by_stride[stage.log2_strides].path}" and "{stage.path}".'
            )
        by_stride[stage.log2_strides] = stage
    return {
        f"P{strides[0]}": (stage.layer, 0)
        for strides, stage in by_stride.items()
        if len(set(strides)) == 1 and strides[0] >= 0
    }


def declared_levels(model: keras.layers.Layer) -> dict[str, keras.KerasTensor]:
    """The levels that a backbone declares, as a dict that maps names to tensors.

    A backbone of `keras_hub` has them in `pyramid_outputs`, and one of `keras_cv` has
    names of layers in `pyramid_level_inputs`. The dict is empty for any other model.
    """
    tensors = getattr(model, "pyramid_outputs", None)
    if tensors:
        return dict(tensors)
    names = getattr(model, "pyramid_level_inputs", None) or {}
    return {level: model.get_layer(name).output for level, name in names.items()}


def backbones(model: keras.Model) -> list[tuple[Names, keras.Model]]:
    """The outermost models inside a model that declare levels, as `(path, model)`."""
    if declared_levels(model):
        return [((), model)]
    found: list[tuple[Names, keras.Model]] = []
    for path, layer in layer_paths(model):
        is_within = any(path[: len(outer)] == outer for outer, _ in found)
        is_known = any(layer is other for _, other in found)
        if not (is_within or is_known) and declared_levels(layer):
            found.append((path, layer))
    return found


def _log2_strides(sizes: Sequence[Size]) -> list[Size]:
    """Log2 of the stride from the first size to each size with as many axes."""
    last: dict[int, tuple[Size, Size]] = {}
    found = []
    for size in sizes:
        previous, strides = last.get(len(size), (size, (0,) * len(size)))
        # Rounding the ratio of consecutive sizes ignores the margins they lose.
        strides = tuple(
            stride + round(math.log2(old / new))
            for stride, old, new in zip(strides, previous, size, strict=True)
        )
        last[len(size)] = size, strides
        found.append(strides)
    return found


def _input_sizes(model: keras.Model) -> set[Size]:
    shapes = [tuple(tensor.shape) for tensor in model.inputs]
    sizes = {size for s in shapes if (size := _size(model, "its input", s)) is not None}
    if len(sizes) > 1:
        raise ValueError(
            f"The inputs of {model.name!r} have different sizes, {sorted(sizes)}, so "
            "the strides of its stages are not defined."
        )
    return sizes


def _size(model: keras.Model, path: str, shape: Shape | None) -> Size | None:
    """The size of a feature map. `None` if the shape is not one of a feature map."""
    # A single position is a gate or a pooled feature.
    if shape is None or len(shape) < 3 or is_single_position(shape):
        return None
    positions = _positions(shape)
    size = tuple(length for length in positions if length is not None)
    if len(size) < len(positions):
        raise ValueError(
            f"The stages of {model.name!r} cannot be found, because its feature maps "
            f"have no known size ({path!r}: {shape}). Give its input a fixed size."
        )
    return size


def is_single_position(shape: Shape) -> bool:
    """Whether a shape `(n, ..., c)` has exactly one position."""
    return len(shape) > 2 and set(_positions(shape)) == {1}


def _positions(shape: Shape) -> Shape:
    channels = channel_axis(len(shape))
    return tuple(
        length for axis, length in enumerate(shape) if axis not in (0, channels)
    )
