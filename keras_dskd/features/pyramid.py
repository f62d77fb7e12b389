"""Feature maps by pyramid level: `"P3"` is the one of stride 2³, in any network.

Backbones of `keras_hub` and `keras_cv` say themselves which tensors their levels are.
In other graphs a level is the end of the stage of that stride.
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
#: Levels by name, as `(operation, output's index)`.
Levels: TypeAlias = dict[str, tuple[keras.Operation, int]]

# No features of their own: as before, thinned out, or with a margin more or less.
_PASSED_OVER = (
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
    """Feature maps that follow one another in one size.

    Attributes:
        path: Path of the last layer, or operation where it is no layer's.
        layer: That layer or operation.
        log2_strides: Base-2 logarithm of the stride to the input, per axis.
    """

    path: str
    layer: keras.Operation
    log2_strides: Size


def stages(model: keras.Model) -> list[Stage]:
    """The stages of a model, in order, read off its `articulation_points`.

    Sizes that are nearer to equal than to halves are of one stage: convolutions without
    padding take off a margin. In a stage some layer has weights.

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
        for path, layer in articulation_points(model)
        if not isinstance(layer, _PASSED_OVER)
        and (size := _size(model, path, output_shape(layer)))
    ]
    inputs = _input_sizes(model)
    sizes = [*inputs, *(size for _, _, size in maps)]
    log2_strides = _log2_strides(sizes)[len(inputs) :]
    found = []
    pairs = zip(maps, log2_strides, strict=True)
    for _, of_one_size in itertools.groupby(pairs, lambda pair: pair[1]):
        run = list(of_one_size)
        if any(size in with_weights for (_, _, size), _ in run):
            (path, layer, _), halved = run[-1]
            found.append(Stage(path, layer, halved))
    if not found:
        raise ValueError(f"{model.name!r} has no feature maps that all others follow.")
    return found


def is_level(model: keras.Model, name: str) -> bool:
    """Whether it is a level's name, there or not: `P` and a number, or declared."""
    return bool(re.fullmatch(r"P\d+", name)) or any(
        name in declared_levels(backbone) for _, backbone in backbones(model)
    )


def find_level(model: keras.Model, name: str) -> tuple[keras.Operation, int]:
    """The output that a level's name stands for, as `(operation, output's index)`.

    Where a model holds backbones that declare levels, it is the one that has the level.

    Raises:
        ValueError: If none has it, or more than one, or the graph does not tell.
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
            f"{len(paths)} backbones have the level. Use a path: "
            f"{', '.join(paths.values())}."
        )
    if not paths:
        there = [
            f'"{"/".join([*path, level])}"'
            for path, of_backbone in levels_of.items()
            for level in of_backbone
        ]
        raise ValueError(f"The pyramid levels there are: {', '.join(there)}.")
    return levels_of[next(iter(paths))][name]


def levels(model: keras.Model) -> Levels:
    """The pyramid levels of a model: a dict of name -> (operation, output's index).

    Those that it declares, or else the ends of its stages by their strides. The index
    counts the operation's outputs, flattened.

    Raises:
        ValueError: If its graph does not tell, with the reason.
    """
    declared = declared_levels(model)
    if declared:
        made_by = {name: origin(tensor) for name, tensor in declared.items()}
        return {name: (made[0], made[2]) for name, made in made_by.items()}
    sizes = _input_sizes(model) if has_graph(model) else set()
    by_stride: dict[Size, Stage] = {}
    for stage in stages(model):
        if {len(stage.log2_strides)} != {len(size) for size in sizes}:
            continue  # Tokens, where the input is an image.
        if stage.log2_strides in by_stride:
            raise ValueError(
                f"Two stages of {model.name!r} have one size: they end in "
                f'"{by_stride[stage.log2_strides].path}" and "{stage.path}".'
            )
        by_stride[stage.log2_strides] = stage
    return {
        f"P{log2_strides[0]}": (stage.layer, 0)
        for log2_strides, stage in by_stride.items()
        if len(set(log2_strides)) == 1 and log2_strides[0] >= 0
    }


def declared_levels(model: keras.layers.Layer) -> dict[str, keras.KerasTensor]:
    """What a backbone itself calls its levels: a dict of name -> tensor of its graph.

    It has `pyramid_outputs`, as in `keras_hub`, or names of layers in
    `pyramid_level_inputs`, as in `keras_cv`. Empty for any other model.
    """
    tensors = getattr(model, "pyramid_outputs", None)
    if tensors:
        return dict(tensors)
    names = getattr(model, "pyramid_level_inputs", None) or {}
    return {level: model.get_layer(name).output for level, name in names.items()}


def backbones(model: keras.Model) -> list[tuple[Names, keras.Model]]:
    """The outermost models that declare levels, each once, as `(path, model)`."""
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
    """Stride of each size to the first one with as many axes, as logarithms."""
    last: dict[int, tuple[Size, Size]] = {}
    found = []
    for size in sizes:
        before, halved = last.get(len(size), (size, (0,) * len(size)))
        halved = tuple(
            times + round(math.log2(old / new))
            for times, old, new in zip(halved, before, size, strict=True)
        )
        last[len(size)] = size, halved
        found.append(halved)
    return found


def _input_sizes(model: keras.Model) -> set[Size]:
    shapes = [tuple(tensor.shape) for tensor in model.inputs]
    sizes = {size for s in shapes if (size := _size(model, "its input", s)) is not None}
    if len(sizes) > 1:
        raise ValueError(
            f"The inputs of {model.name!r} have different sizes, {sorted(sizes)}, so "
            "that its stages have no one stride."
        )
    return sizes


def _size(model: keras.Model, path: str, shape: Shape | None) -> Size | None:
    """The positions of a feature map, or `None` for what is none."""
    # A single position is a gate or a pooled feature, not a map.
    if shape is None or len(shape) < 3 or is_single_position(shape):
        return None
    positions = _positions(shape)
    size = tuple(length for length in positions if length is not None)
    if len(size) < len(positions):
        raise ValueError(
            f"The feature maps of {model.name!r} have no known size ({path!r}: "
            f"{shape}), which would tell its stages. Give its input a size."
        )
    return size


def is_single_position(shape: Shape) -> bool:
    """Whether a shape `(n, ..., c)` has one position alone."""
    return len(shape) > 2 and set(_positions(shape)) == {1}


def _positions(shape: Shape) -> Shape:
    channels = channel_axis(len(shape))
    return tuple(
        length for axis, length in enumerate(shape) if axis not in (0, channels)
    )
