"""A model's features: read over data, and picked where the user does not name them."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
from keras import ops

from keras_dskd import kept_values, pyramid
from keras_dskd.model_graph import (
    graph_layers,
    has_graph,
    layer_paths,
    output_shape,
    trunk,
)
from keras_dskd.ops.rows import rows
from keras_dskd.taps import OUTPUT, Tap, capture, find_layer, find_output
from keras_dskd.types import Nested, Shape


class FeatureModel(keras.Model):
    """A model whose output is the features of another: for `predict` over data.

    Args:
        model: A `keras.Model`; runs in inference mode.
        names: Names of the layers to read. See `Tap`. `OUTPUT` is the final output.
        pooled: Those among them to pool over positions, where they are made: feature
            maps of a whole data set would fill memory.
        takes: Function of a batch's `x` that returns the model's input. Defaults to
            all of it.

    Output: a dict of name -> feature.
    """

    def __init__(
        self,
        model: keras.Model,
        names: Sequence[str],
        pooled: Iterable[str] = (),
        takes: Callable[[Nested], Nested] | None = None,
    ) -> None:
        super().__init__(autocast=False)
        self.model = model
        self.names = tuple(names)
        self.pooled = frozenset(pooled)
        self.takes = takes or (lambda x: x)

    def call(self, inputs: Nested) -> dict[str, Nested]:
        taps = [Tap(self.model, name) for name in self.names if name != OUTPUT]
        with capture(taps) as features:
            output = self.model(self.takes(inputs), training=False)
        if OUTPUT in self.names:
            features[OUTPUT] = output
        return {
            name: rows(feature) if name in self.pooled else feature
            for name, feature in features.items()
        }

    def predict(self, *args: Any, **kwargs: Any) -> dict[str, Nested]:
        """The features of all data; see `keras.Model.predict`."""
        with kept_values.keeping_values(self):
            return super().predict(*args, **kwargs)


class ShapesOnly(keras.layers.Layer):
    """A function as a layer, for its `compute_output_spec`."""

    def __init__(self, function: Callable[[Nested], Nested]) -> None:
        super().__init__(autocast=False)
        self.function = function

    def call(self, x: Nested) -> Nested:
        return self.function(x)


def check_layer_name(name: object) -> None:
    """Raises `ValueError` unless it is the name of a layer or `None`."""
    if name is not None and not isinstance(name, str):
        raise ValueError(
            "A layer is given by its name or path, or None for the final output. "
            f"Received: {name!r} of type {type(name).__name__}"
        )


def output_activations(model: keras.Model, layer_name: str | None = None) -> set[str]:
    """Names of the activations that outputs have gone through, where they are known.

    Args:
        model: A `keras.Model`.
        layer_name: A layer's name, as of a `Tap`; `None` for the final outputs.

    Returns:
        A set of strings such as `{"softmax"}`. Empty for a subclassed model, whose
        outputs nothing ties to a layer.
    """
    if layer_name:
        makers = [find_layer(model, layer_name.partition("#")[0])]
    elif isinstance(model, keras.Sequential) and model.layers:
        makers = [model.layers[-1]]
    elif getattr(model, "inputs", None):
        makers = [output._keras_history.operation for output in model.outputs]
    else:
        return set()
    found = set()
    for maker in makers:
        if isinstance(maker, keras.Model):
            found |= output_activations(maker)
        elif type(maker).__name__ in ("Softmax", "Sigmoid"):
            found.add(type(maker).__name__.lower())  # The layers and `keras.ops`.
        else:
            name = getattr(getattr(maker, "activation", None), "__name__", None)
            found |= {name} if name else set()
    return found


def head_input(model: keras.Model) -> str:
    """Path of the layer whose output the head reads.

    The head is the last `Dense` layer, or a 1x1 convolution of a single position, which
    is one by another name. Dropout before it is passed over: what it drops is noise to
    a statistic.

    Raises:
        ValueError: If there is no such layer.
    """
    heads = [layer for _, layer in trunk(model) if _is_head(layer)] or [
        # Several outputs have heads that are in no common trunk.
        layer
        for _, layer in graph_layers(model)
        if isinstance(layer, keras.layers.Dense)
    ]
    if not heads:
        raise ValueError(f"{model.name!r} has no Dense layer to read the input of.")
    paths = {id(layer): "/".join(path) for path, layer in layer_paths(model)}
    layer = heads[-1].input._keras_history.operation
    while isinstance(layer, keras.layers.Dropout):
        layer = layer.input._keras_history.operation
    if id(layer) not in paths or isinstance(layer, keras.layers.InputLayer):
        raise ValueError(
            f"The last Dense layer of {model.name!r}, {heads[-1].name!r}, does not "
            "read the output of a layer."
        )
    return paths[id(layer)]


def stage_ends(model: keras.Model) -> list[str]:
    """Names of the last feature map of each size, in the order of the sizes.

    The levels of the one backbone that declares a pyramid, or else the paths of the
    ends of the stages. See `keras_dskd.pyramid`.

    Raises:
        ValueError: If the model has no feature maps of known size.
    """
    backbones = pyramid.backbones(model)
    if len(backbones) == 1:
        path, backbone = backbones[0]
        return ["/".join([*path, level]) for level in pyramid.levels(backbone)]
    return [stage.path for stage in pyramid.stages(model)]


def feature_shape(model: keras.Model, name: str) -> Shape:
    """Shape of a layer's output, `None` for axes of any length.

    Raises:
        ValueError: If only a call on data could tell.
    """
    layer, index = find_output(model, name.partition("#")[0])
    shape = output_shape(layer, index)
    if shape is not None:
        return shape
    if has_graph(model):
        reading = FeatureModel(model, [name])
        return tuple(reading.compute_output_spec(model.input)[name].shape)
    input_shape = (model.get_build_config() or {}).get("input_shape")
    if not isinstance(input_shape, (list, tuple)) or None in input_shape[1:]:
        raise ValueError(
            f"The shape of {name!r} in {model.name!r} is only known once the model is "
            "called on data."
        )
    zeros = ops.zeros((2, *input_shape[1:]))
    return (None, *FeatureModel(model, [name])(zeros)[name].shape[1:])


def dtype_policies(model: keras.Model) -> list[str]:
    """Names of the dtype policies that a model's layers compute by, sorted.

    Models that are a graph of layers compute nothing, and lose theirs when loaded.
    """
    layers = [model, *(layer for _, layer in layer_paths(model))]
    return sorted(
        {
            layer.dtype_policy.name
            for layer in layers
            if not has_graph(layer) and not isinstance(layer, keras.layers.InputLayer)
        }
    )


def _is_head(layer: keras.Operation) -> bool:
    if isinstance(layer, keras.layers.Dense):
        return True
    convolutions = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
    shape = output_shape(layer) if isinstance(layer, convolutions) else None
    return shape is not None and pyramid.is_single_position(shape)
