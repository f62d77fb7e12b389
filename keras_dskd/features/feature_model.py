"""A model's features: read over data, and picked where the user does not name them."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
from keras import ops

from keras_dskd.features.layer_graph import (
    has_graph,
    output_shape,
)
from keras_dskd.features.taps import OUTPUT, Tap, capture, find_output
from keras_dskd.internal import trainer_state
from keras_dskd.internal.types import Nested, Shape
from keras_dskd.ops.rows import rows


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
        with trainer_state.keeping_values(self):
            return super().predict(*args, **kwargs)


class ShapesOnly(keras.layers.Layer):
    """A function as a layer, for its `compute_output_spec`."""

    def __init__(self, function: Callable[[Nested], Nested]) -> None:
        super().__init__(autocast=False)
        self.function = function

    def call(self, x: Nested) -> Nested:
        return self.function(x)


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
