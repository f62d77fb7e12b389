"""A model's layers: by path, and in the order that its graph computes them."""

from collections.abc import Callable, Iterable
from typing import TypeAlias

import keras

from keras_dskd.internal.keras_private import call_inputs, origin, sublayers
from keras_dskd.internal.types import Shape

#: The names on the way to a layer.
Names: TypeAlias = tuple[str, ...]
_Call: TypeAlias = tuple[int, int]
_Calls: TypeAlias = dict[_Call, tuple[keras.Operation, list[keras.KerasTensor]]]


def layer_paths(model: keras.layers.Layer) -> list[tuple[Names, keras.layers.Layer]]:
    """Every layer below a model, as `(path, layer)`, in the model's order.

    A layer that is reached in more than one way is listed each time.
    """
    paths = []

    def walk(parent: keras.layers.Layer, prefix: Names, ancestors: set[int]) -> None:
        children = (
            parent.layers if isinstance(parent, keras.Model) else sublayers(parent)
        )
        for layer in children:
            path = (*prefix, layer.name)
            paths.append((path, layer))
            if id(layer) not in ancestors:
                walk(layer, path, {*ancestors, id(layer)})

    walk(model, (), {id(model)})
    return paths


def operation_paths(model: keras.Model) -> list[tuple[Names, keras.Operation]]:
    """Every operation of a graph that is no layer, as `(path, operation)`.

    Such as the addition that `x + y` makes of symbolic tensors.
    """
    return [
        ((*path, operation.name), operation)
        for path, holder in [((), model), *layer_paths(model)]
        if has_graph(holder)
        for operation in getattr(holder, "operations", ())  # Sequential has layers.
        if not isinstance(operation, keras.layers.Layer)
    ]


def has_graph(layer: keras.layers.Layer) -> bool:
    """Whether it is a Functional or Sequential model, and built."""
    return isinstance(layer, keras.Model) and bool(getattr(layer, "inputs", None))


def graph_layers(model: keras.Model) -> list[tuple[str, keras.layers.Layer]]:
    """Layers of a Functional or Sequential model in order, as `(path, layer)`.

    Nested models are entered; other layers are taken whole, since nothing tells
    the order in which they call their own layers.

    Raises:
        ValueError: If the model has no graph to read, or is not built.
    """
    _check_graph(model)
    return _entered(model.layers, graph_layers)


def articulation_points(model: keras.Model) -> list[tuple[str, keras.Operation]]:
    """The operations that every path from an input to the output passes, in order.

    The end of a residual block is such a point. An operation inside the block is not,
    because the shortcut bypasses it; nor is a gate, or a layer of one of two towers.
    Only paths of feature maps count: a vector of facts beside an image bypasses
    nothing. If the model has several outputs, this uses the output that depends on
    the most layers. Nested models are entered.

    Returns:
        A list of `(path, layer)`.

    Raises:
        ValueError: If the model has no graph to read, or is not built.
    """
    _check_graph(model)
    calls = max((_calls(output) for output in model.outputs), key=len)
    # Inputs first, so that a second input bypasses nothing. Sorting is stable: each
    # call still follows its inputs.
    calls = dict(sorted(calls.items(), key=lambda call: bool(call[1][1])))
    position = {call: index for index, call in enumerate(calls)}
    last_reader, reads_maps = [0] * len(calls), set()
    for call, (_, inputs) in calls.items():
        for tensor in inputs:
            # A vector beside the image does not bypass the image's layers.
            if len(tensor.shape) > 2 or _call(tensor) in reads_maps:
                last_reader[position[_call(tensor)]] = position[call]
                reads_maps.add(call)
    found, farthest = [], 0
    for index, (operation, _) in enumerate(calls.values()):
        if farthest <= index:
            found.append(operation)
        farthest = max(farthest, last_reader[index])
    return _entered(found, articulation_points)


def output_shape(layer: keras.Operation, index: int | None = None) -> Shape | None:
    """Shape of a layer's one output, or of that index; `None` where there is none."""
    try:
        output = layer.output
    # A layer called never, or several times, or outside of a graph has none.
    except (AttributeError, ValueError):
        return None
    if index is not None:
        output = keras.tree.flatten(output)[index]
    return None if keras.tree.is_nested(output) else tuple(output.shape)


def _check_graph(model: keras.Model) -> None:
    if not has_graph(model):
        raise ValueError(
            f"{model.name!r} is a subclassed or unbuilt model, whose layers are in no "
            "known order."
        )


def _entered(
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
    """Which call of which operation made a tensor of a graph."""
    operation, call, _ = origin(tensor)
    return id(operation), call


def _calls(output: keras.KerasTensor) -> _Calls:
    """The calls that lead to an output, each after those it depends on.

    Returns:
        A dict of `_call` -> (operation, its input tensors).
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
