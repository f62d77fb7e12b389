"""A model that outputs the features of another model."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
from keras import ops

from keras_dskd.features.completing import complete
from keras_dskd.features.layer_graph import has_graph
from keras_dskd.features.outputs import check_one, symbolic_outputs
from keras_dskd.features.step_masks import StepMasks, mask_key
from keras_dskd.features.taps import OUTPUT, Tap, capture
from keras_dskd.internal import trainer_state
from keras_dskd.internal.types import Nested, Shape
from keras_dskd.ops.rows import as_rows
from keras_dskd.ops.step_masks import has_step


class FeatureModel(keras.Model):
    """A model that outputs the features of another model, for `predict` over data.

    Its output is a dict that maps each name to a feature. A feature with a Keras mask
    is pooled over its real steps, and the mask is in the dict, too, by `mask_key`: a
    bool tensor `(n, steps)`, or for a pooled feature `(n,)`, true for samples with a
    real step.

    Args:
        model: A `keras.Model`. It runs in inference mode.
        names: Names of the layers to read. See `Tap`. `OUTPUT` is the final output.
        pooled: The names whose features to average over positions within the batch,
            because the feature maps of a whole data set may not fit in memory.
        takes: Function that extracts the model's input from the `x` of a batch.
            Defaults to the identity.
        role: What the model is, for errors. A model without weights is refused, unless
            it is the "student".
    """

    def __init__(
        self,
        model: keras.Model,
        names: Sequence[str],
        pooled: Iterable[str] = (),
        takes: Callable[[Nested], Nested] | None = None,
        role: str = "model",
    ) -> None:
        super().__init__(autocast=False)
        self.model = model
        self.names = tuple(names)
        self.pooled = frozenset(pooled)
        self.takes = takes or (lambda x: x)
        self.role = role
        # Finding a layer walks the whole model, and may need a built model: do it in
        # the first call.
        self._taps: tuple[Tap, ...] | None = None

    def call(self, inputs: Nested) -> dict[str, Nested]:
        x = self.takes(inputs)
        if self.role != "student":
            complete(self.model, x, self.role)
        if self._taps is None:
            self._taps = tuple(
                Tap(self.model, name) for name in self.names if name != OUTPUT
            )
        step_masks = StepMasks()
        with capture(self._taps, step_masks) as features:
            output = self.model(x, training=False)
        if OUTPUT in self.names:
            features[OUTPUT] = output
        masks = step_masks.of(features)
        for name in self.pooled:
            check_one(features[name], name, f'model "{self.model.name}"')
            features[name] = as_rows(features[name], step_mask=masks.get(name))
            if name in masks:
                masks[name] = has_step(masks[name])
        return {**features, **{mask_key(name): mask for name, mask in masks.items()}}

    def predict(self, *args: Any, **kwargs: Any) -> dict[str, Nested]:
        """Compute the features of all data. See `keras.Model.predict`."""
        with trainer_state.keeping_values(self):
            return super().predict(*args, **kwargs)


class ShapesOnly(keras.layers.Layer):
    """A function as a layer, to call `compute_output_spec` on."""

    def __init__(self, function: Callable[[Nested], Nested]) -> None:
        super().__init__(autocast=False)
        self.function = function

    def call(self, x: Nested) -> Nested:
        return self.function(x)


def feature_shape(model: keras.Model, name: str) -> Shape:
    """The shape of a layer's output. An axis of unknown length is `None`.

    Raises:
        ValueError: If the layer has several outputs, or the shape depends on data that
            the model has not seen.
    """
    output = symbolic_outputs(model, name)
    if output is not None and Tap(model, name).steps_layer is None:
        check_one(output, name, f'model "{model.name}"')
        return tuple(output.shape)
    if has_graph(model):
        reading = FeatureModel(model, [name])
        output = reading.compute_output_spec(model.input)[name]
        check_one(output, name, f'model "{model.name}"')
        return tuple(output.shape)
    input_shape = (model.get_build_config() or {}).get("input_shape")
    if not isinstance(input_shape, (list, tuple)) or None in input_shape[1:]:
        raise ValueError(
            f"The shape of {name!r} in {model.name!r} is unknown until the model is "
            "called on data."
        )
    zeros = ops.zeros((2, *input_shape[1:]))
    output = FeatureModel(model, [name])(zeros)[name]
    check_one(output, name, f'model "{model.name}"')
    return (None, *output.shape[1:])
