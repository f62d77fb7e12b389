"""Layers that recipes read: the ends of stages or blocks, and the head's input."""

import math

import keras

from keras_dskd.features import pyramid
from keras_dskd.features.layer_graph import (
    articulation_points,
    calls_of,
    deepest_output,
    graph_layers,
    has_graph,
    layer_paths,
    operation_paths,
    output_shape,
)
from keras_dskd.internal.keras_private import call_inputs, origin, producer
from keras_dskd.internal.types import Shape

_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
_DROPOUT = (
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.GaussianNoise,
)
_RECURRENT = (keras.layers.RNN, keras.layers.Bidirectional)
#: Names of layers and operations between a model's head and its output.
_AFTER_HEAD = frozenset(
    {
        *("Activation", "Softmax", "Sigmoid", "LogSoftmax", "Reshape", "Flatten"),
        *("Squeeze", "ExpandDims", "Transpose", "Permute", "Cast", "Identity"),
        *("Dropout", "Resizing", "Rescaling", "GetItem", "Mean"),
        *(f"UpSampling{n}D" for n in (1, 2, 3)),
        *(f"Cropping{n}D" for n in (1, 2, 3)),
        *(f"GlobalAveragePooling{n}D" for n in (1, 2, 3)),
    }
)


def middle_layers(model: keras.Model, count: int) -> list[str]:
    """The paths of `count` layers in the middle depths of a model.

    They end the middle stages of feature maps, or the middle blocks of a model whose
    features all have one size, as in transformers and recurrent networks.

    Raises:
        ValueError: If the model has too few stages and blocks, or its graph is unknown.
    """
    blocks = block_ends(model)
    try:
        ends = stage_ends(model, encoder=True)
    except ValueError:
        # Sequences of any length have blocks, but no stages.
        if not blocks:
            raise
        ends = []
    if blocks and (len(ends) < max(count, 2) or _has_tokens(model)):
        if len(blocks) < count:
            raise ValueError(
                f"{count} blocks are needed, but {model.name!r} has {len(blocks)}: "
                f"{blocks}."
            )
        depths = (0.5 + 0.25 * number for number in range(count))
        return [blocks[math.ceil(depth * len(blocks)) - 1] for depth in depths]
    if len(ends) < count:
        raise ValueError(
            f"{count} stages of feature maps are needed, but {model.name!r} has "
            f"{len(ends)}: {ends}."
        )
    first = (len(ends) - 1) // 2
    return ends[first : first + count]


def stage_ends(model: keras.Model, encoder: bool = False) -> list[str]:
    """The name of the last feature map of each stage, from the input to the output.

    If exactly one backbone declares pyramid levels, these are its levels. Otherwise
    they are the paths of the layers that end the stages. See
    `keras_dskd.features.pyramid`.

    Raises:
        ValueError: If the model has no feature maps of known size.
    """
    backbones = pyramid.backbones(model)
    if len(backbones) == 1:
        path, backbone = backbones[0]
        return ["/".join([*path, level]) for level in pyramid.levels(backbone)]
    return [stage.path for stage in pyramid.stages(model, encoder)]


def _has_tokens(model: keras.Model) -> bool:
    """Whether an image model computes on a sequence of tokens."""
    return not pyramid.backbones(model) and 2 == len(
        {len(stage.log2_strides) for stage in pyramid.stages(model, encoder=True)}
    )


def block_ends(model: keras.Model) -> list[str]:
    """The paths of the layers that end the blocks of sequence features, in order.

    A block is a residual connection, or a layer with weights, with the normalization
    and activation after it. Only features `(n, steps, channels)` count, and the outputs
    of recurrent layers. The list is empty if the model's graph is unknown.
    """
    if not has_graph(model):
        return []
    ends: list[str] = []
    shape: Shape | None = None
    for path, layer in articulation_points(model):
        if _starts_block(layer):
            shape = output_shape(layer)
            ends.append(path)
        elif ends and output_shape(layer) == shape and _completes_block(layer):
            ends[-1] = path
        elif not isinstance(layer, _DROPOUT):
            shape = None
    return ends


def head_input(model: keras.Model) -> str:
    """The path of the layer whose output the head reads.

    The head is the `Dense` layer or convolution that makes the output, before its
    activation and changes of shape; or else the last `Dense` layer, or convolution with
    a single output position, that every path to the output passes. Dropout before the
    head is skipped, because it only adds noise to statistics of the features.

    Raises:
        ValueError: If there is no such layer.
    """
    head = _head(model)
    if head is None:
        raise ValueError(f"{model.name!r} has no Dense layer whose input can be read.")
    paths = {
        id(layer): "/".join(path)
        for path, layer in (*operation_paths(model), *layer_paths(model))
    }
    layer = producer(head.input)
    while isinstance(layer, _DROPOUT):
        layer = producer(layer.input)
    if id(layer) not in paths or isinstance(layer, keras.layers.InputLayer):
        raise ValueError(
            f"The input of {head.name!r}, the last layer with weights of "
            f"{model.name!r}, is not the output of a layer."
        )
    return paths[id(layer)]


def _head(model: keras.Model) -> keras.Operation | None:
    if has_graph(model):
        tensor = deepest_output(model)
        while tensor is not None:
            operation, call, index = origin(tensor)
            if has_graph(operation):
                tensor = operation.outputs[index]
            elif isinstance(operation, (keras.layers.Dense, *_CONVOLUTIONS)):
                return operation
            else:
                is_after = type(operation).__name__ in _AFTER_HEAD
                inputs = call_inputs(operation, call)
                tensor = inputs[0] if is_after and len(inputs) == 1 else None
    heads = [layer for _, layer in articulation_points(model) if _is_head(layer)] or [
        # In a model with several outputs, the heads are not articulation points.
        layer
        for _, layer in graph_layers(model)
        if isinstance(layer, keras.layers.Dense)
    ]
    return heads[-1] if heads else None


def _is_head(layer: keras.Operation) -> bool:
    if isinstance(layer, keras.layers.Dense):
        return True
    shape = output_shape(layer) if isinstance(layer, _CONVOLUTIONS) else None
    return shape is not None and pyramid.is_single_position(shape)


def _starts_block(layer: keras.Operation) -> bool:
    shape = output_shape(layer)
    if shape is None or not (len(shape) == 3 or isinstance(layer, _RECURRENT)):
        return False
    if isinstance(layer, keras.layers.Add) or type(layer).__name__ == "Add":
        # Not the sum of embeddings.
        return any(_computes(made) for made, _ in calls_of(layer.output).values())
    return _computes(layer)


def _computes(layer: keras.Operation) -> bool:
    """Whether a layer computes features with weights."""
    return (
        bool(getattr(layer, "weights", ()))
        and not _completes_block(layer)
        and not type(layer).__name__.endswith("Embedding")
    )


def _completes_block(layer: keras.Operation) -> bool:
    """Whether a layer is a normalization or an activation."""
    name = type(layer).__name__
    is_norm = name.endswith(("Normalization", "Norm"))
    return is_norm or isinstance(
        layer,
        (
            keras.layers.Activation,
            keras.layers.ReLU,
            keras.layers.LeakyReLU,
            keras.layers.PReLU,
            keras.layers.ELU,
        ),
    )
