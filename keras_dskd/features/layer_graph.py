"""A model's layers: by path, and in the order in which its graph calls them."""

import functools
import math
from collections.abc import Callable, Iterable
from typing import TypeAlias

import keras

from keras_dskd.internal.keras_private import call_inputs, origin, sublayers
from keras_dskd.internal.members import members_of
from keras_dskd.internal.types import Shape
from keras_dskd.ops.rows import channel_axis

#: The path of a layer: the names of the layers that hold it, and its own.
Names: TypeAlias = tuple[str, ...]
_Call: TypeAlias = tuple[int, int]
_Calls: TypeAlias = dict[_Call, tuple[keras.Operation, list[keras.KerasTensor]]]


def layer_paths(model: keras.layers.Layer) -> list[tuple[Names, keras.layers.Layer]]:
    """All layers inside a model, at any depth, as `(path, layer)`.

    They are in the order in which the model lists them. A layer that is reachable by
    several paths is listed once per path.
    """
    paths = []

    def walk(parent: keras.layers.Layer, prefix: Names, ancestors: set[int]) -> None:
        children = (
            parent.layers if isinstance(parent, keras.Model) else sublayers(parent)
        )
        # Several teachers go by the names that their user gave them.
        given = {id(layer): key for key, layer in members_of(parent).items()}
        for layer in children:
            path = (*prefix, given.get(id(layer), layer.name))
            paths.append((path, layer))
            if id(layer) not in ancestors:
                walk(layer, path, {*ancestors, id(layer)})

    walk(model, (), {id(model)})
    return paths


def operation_paths(model: keras.Model) -> list[tuple[Names, keras.Operation]]:
    """All operations of a model's graphs that are not layers, as `(path, operation)`.

    One example is the addition in `x + y` for symbolic tensors.
    """
    return [
        ((*path, operation.name), operation)
        for path, holder in [((), model), *layer_paths(model)]
        if has_graph(holder)
        for operation in getattr(holder, "operations", ())  # Sequential has none.
        if not isinstance(operation, keras.layers.Layer)
    ]


def has_graph(layer: keras.layers.Layer) -> bool:
    """Whether a layer is a Functional or Sequential model that is built."""
    return isinstance(layer, keras.Model) and bool(getattr(layer, "inputs", None))


def graph_layers(model: keras.Model) -> list[tuple[str, keras.layers.Layer]]:
    """The layers of a Functional or Sequential model in order, as `(path, layer)`.

    Nested models are entered. Other layers are not, because the order in which they
    call their sublayers is unknown.

    Raises:
        ValueError: If the model is subclassed or not built.
    """
    _check_graph(model)
    return _enter_nested(model.layers, graph_layers)


def articulation_points(
    model: keras.Model, encoder: bool = False
) -> list[tuple[str, keras.Operation]]:
    """The operations that every path from an input to the output passes, in order.

    The end of a residual block is such a point. An operation inside the block is not,
    because the shortcut bypasses it. Operations inside a gate, or inside one of two
    towers, are bypassed in the same way. Only paths of feature maps count: a vector
    input beside an image bypasses nothing. If the model has several outputs, this uses
    the output that depends on the most layers. Nested models are entered.

    Args:
        model: A Functional or Sequential model.
        encoder: If feature maps shrink and then grow, as in a U-Net, look only at the
            paths to the smallest map: skip connections bypass the rest of the encoder
            on the way to the output.

    Returns:
        A list of `(path, layer)`.

    Raises:
        ValueError: If the model is subclassed or not built.
    """
    _check_graph(model)
    output = deepest_output(model)
    calls = calls_of(_smallest_map(output) if encoder else output)
    # Inputs first: paths from a second input bypass the tower of the first one. The
    # sort is stable, so that each call still follows its inputs.
    calls = dict(sorted(calls.items(), key=lambda call: bool(call[1][1])))
    position = {call: index for index, call in enumerate(calls)}
    last_reader, reads_maps = [0] * len(calls), set()
    for call, (_, inputs) in calls.items():
        for tensor in inputs:
            # Neither a vector beside an image nor a mask of steps bypasses layers.
            if keras.backend.standardize_dtype(tensor.dtype) == "bool":
                continue
            if len(tensor.shape) > 2 or _call(tensor) in reads_maps:
                last_reader[position[_call(tensor)]] = position[call]
                reads_maps.add(call)
    found, farthest = [], 0
    for index, (operation, _) in enumerate(calls.values()):
        if farthest <= index:
            found.append(operation)
        farthest = max(farthest, last_reader[index])
    return _enter_nested(found, functools.partial(articulation_points, encoder=encoder))


def output_shape(layer: keras.Operation, index: int | None = None) -> Shape | None:
    """The shape of a layer's output, if the graph shows it.

    Args:
        layer: A layer or operation.
        index: Index among its flattened outputs. `None` if it has one output.

    Returns:
        The shape, or `None` if the layer has no single symbolic output.
    """
    try:
        output = layer.output
    # The layer was never called in a graph, or was called more than once.
    except (AttributeError, ValueError):
        return None
    if index is not None:
        output = keras.tree.flatten(output)[index]
    return None if keras.tree.is_nested(output) else tuple(output.shape)


def _check_graph(model: keras.Model) -> None:
    if not has_graph(model):
        raise ValueError(
            f"The order of the layers of {model.name!r} is unknown, because the model "
            "is subclassed or not built."
        )


def _enter_nested(
    layers: Iterable[keras.Operation],
    layers_of: Callable[[keras.Model], list[tuple[str, keras.Operation]]],
) -> list[tuple[str, keras.Operation]]:
    found = []
    for layer in layers:
        if has_graph(layer):
            found += [
                (f"{layer.name}/{path}", inner) for path, inner in layers_of(layer)
            ]
        else:
            found.append((layer.name, layer))
    return found


def _call(tensor: keras.KerasTensor) -> _Call:
    """An identifier of the operation call that made a symbolic tensor."""
    operation, call, _ = origin(tensor)
    return id(operation), call


def deepest_output(model: keras.Model) -> keras.KerasTensor:
    """The output of a model's graph that depends on the most layers."""
    return max(model.outputs, key=lambda output: len(calls_of(output)))


def _smallest_map(output: keras.KerasTensor) -> keras.KerasTensor:
    """The last of the smallest feature maps if larger ones follow, or the output."""
    calls = calls_of(output)
    position = {call: index for index, call in enumerate(calls)}
    tensors = [tensor for _, inputs in calls.values() for tensor in inputs]
    maps = [
        (count, position[_call(tensor)], tensor)
        for tensor in (*tensors, output)
        if (count := _position_count(tuple(tensor.shape))) > 1
    ]
    if not maps:
        return output
    least = min(count for count, _, _ in maps)
    # Convolutions and padding change sizes by a margin.
    last = max((m for m in maps if m[0] <= 1.2 * least), key=lambda m: m[1])
    grows = any(count > 2 * least for count, index, _ in maps if index > last[1])
    return last[2] if grows else output


def _position_count(shape: Shape) -> int:
    """Number of positions of a feature map; 0 if it has no or an unknown number."""
    if len(shape) < 3:
        return 0
    without = (0, channel_axis(len(shape)))
    lengths = [n for axis, n in enumerate(shape) if axis not in without]
    return math.prod(n or 0 for n in lengths)


def calls_of(output: keras.KerasTensor) -> _Calls:
    """All calls that an output depends on, in topological order.

    Returns:
        A dict that maps each `_call` to `(operation, its input tensors)`.
    """
    calls, waiting = {}, [(output, False)]
    while waiting:
        tensor, inputs_are_done = waiting.pop()
        call = _call(tensor)
        if call in calls:
            continue
        operation, index, _ = origin(tensor)
        inputs = call_inputs(operation, index)
        if inputs_are_done:
            calls[call] = (operation, inputs)
        else:
            waiting.append((tensor, True))
            waiting += [(read, False) for read in reversed(inputs)]
    return calls


def layer_ids(layer: keras.layers.Layer) -> set[int]:
    """The ids of a layer and of all layers inside it."""
    return {id(layer), *(id(below) for _, below in layer_paths(layer))}
