"""What a model's graph says about its outputs: logits, or probabilities of which kind.

The graph is read backwards from an output, through operations that change the shape or
average probabilities, to the activation that made the values.
"""

from typing import Literal, TypeAlias

import keras

from keras_dskd.features.finding import find_layer
from keras_dskd.features.layer_graph import has_graph
from keras_dskd.features.outputs import symbolic_outputs
from keras_dskd.features.teachers import StoredTeacher
from keras_dskd.internal.keras_private import call_inputs, origin

#: `"softmax"` and `"sigmoid"` are probabilities, `"linear"` the result of a linear map.
#: `None` means that the graph does not tell.
OutputKind: TypeAlias = Literal["softmax", "sigmoid", "linear"] | None

_KIND_OF_ACTIVATION: dict[str, OutputKind] = {
    "softmax": "softmax",
    "sigmoid": "sigmoid",
    "hard_sigmoid": "sigmoid",
    "linear": "linear",
    # Log-probabilities are logits, too: a softmax returns the probabilities.
    "log_softmax": "linear",
    "log_sigmoid": None,
}

# Layers and operations of `keras.ops` often have the same name.
_ACTIVATIONS: dict[str, OutputKind] = {
    "Softmax": "softmax",
    "Sigmoid": "sigmoid",
    "HardSigmoid": "sigmoid",
    "LogSoftmax": "linear",
}

#: Operations whose result is of the same kind as all of their inputs: they move values,
#: or average them.
_KEEP_KIND = frozenset(
    {
        *("ActivityRegularization", "Average", "Cast", "Clip", "Concatenate", "Copy"),
        *(
            "Dropout",
            "ExpandDims",
            "Flatten",
            "GetItem",
            "Identity",
            "Mean",
            "Moveaxis",
        ),
        *("Permute", "Reshape", "Split", "Squeeze", "Stack", "StopGradient", "Take"),
        *("SwapAxes", "Transpose", "Unstack"),
        *(f"AveragePooling{n}D" for n in (1, 2, 3)),
        *(f"Cropping{n}D" for n in (1, 2, 3)),
        *(f"GlobalAveragePooling{n}D" for n in (1, 2, 3)),
        *(f"SpatialDropout{n}D" for n in (1, 2, 3)),
        *(f"UpSampling{n}D" for n in (1, 2, 3)),
        *("Resizing", "Resize", "CenterCrop"),
    }
)
#: The same, where they add several tensors, or scale one by a number.
_COMBINE = frozenset({"Add", "Sum", "Divide", "TrueDivide", "Multiply", "Rescaling"})


def output_kinds(model: keras.Model, layer_name: str | None = None) -> list[OutputKind]:
    """The kind of each of a model's outputs.

    Args:
        model: A `keras.Model`.
        layer_name: Name of a layer, as for a `Tap`, to inspect its output instead.
            `None` means the final outputs.

    Returns:
        A list with one kind per output, flattened. `None` stands for an output whose
        kind the graph does not show, as in a subclassed model.
    """
    if isinstance(model, StoredTeacher):
        return [None]
    if not layer_name:
        return _kinds_of_model(model)
    outputs = symbolic_outputs(model, layer_name)
    if outputs is None:  # Not in a graph, or called several times.
        return [_kind_of_layer(find_layer(model, layer_name))]
    return [_kind_of(output) for output in keras.tree.flatten(outputs)]


def _kinds_of_model(model: keras.Model) -> list[OutputKind]:
    if has_graph(model):
        return [_kind_of(output) for output in model.outputs]
    if not isinstance(model, keras.Sequential):
        return [None]
    for layer in reversed(model.layers):
        if not _keeps_kind(layer, [None]):
            return [_kind_of_layer(layer)]
    return [None]


def _kind_of(tensor: keras.KerasTensor) -> OutputKind:
    operation, call, index = origin(tensor)
    if has_graph(operation):
        return _kind_of(operation.outputs[index])
    inputs = call_inputs(operation, call)
    if inputs and _keeps_kind(operation, inputs):
        kinds = {_kind_of(read) for read in inputs}
        return kinds.pop() if len(kinds) == 1 else None
    return _kind_of_layer(operation)


def _kind_of_layer(layer: keras.Operation) -> OutputKind:
    """The kind that a layer gives to its output, whatever it reads."""
    if isinstance(layer, keras.layers.TimeDistributed):
        layer = layer.layer
    if isinstance(layer, keras.Model):
        kinds = set(_kinds_of_model(layer))
        return kinds.pop() if len(kinds) == 1 else None
    if type(layer).__name__ in _ACTIVATIONS:
        return _ACTIVATIONS[type(layer).__name__]
    if isinstance(layer, keras.layers.RNN):
        return None
    name = getattr(getattr(layer, "activation", None), "__name__", "")
    if name == "linear" and isinstance(layer, keras.layers.Activation):
        return None  # It returns what it reads.
    return _KIND_OF_ACTIVATION.get(name)


def _keeps_kind(operation: keras.Operation, inputs: list[object]) -> bool:
    name = type(operation).__name__
    if name in _KEEP_KIND:
        return True
    if name in _COMBINE:
        # A product of two tensors may be anything.
        return name in ("Add", "Sum", "Rescaling") or len(inputs) == 1
    return isinstance(operation, keras.layers.Activation) and (
        getattr(operation.activation, "__name__", "") == "linear"
    )
