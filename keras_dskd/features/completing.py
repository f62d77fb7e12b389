"""Build a model that holds trained weights but was never called."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import keras

from keras_dskd.features.layer_graph import layer_paths
from keras_dskd.internal import keras_private, replicas
from keras_dskd.internal.types import Nested

_lock = threading.Lock()


def complete(model: keras.Model, x: Nested, role: str = "model") -> None:
    """Builds a model, if all weights that it needs exist.

    An example is a pretrained network behind a `Rescaling` layer in a `Sequential`
    model.

    Args:
        model: A `keras.Model`. Does nothing if it is built.
        x: A batch of its input. Only shapes and dtypes are read.
        role: What the model is, for the error.

    Raises:
        ValueError: If building would create new weights: they would be random. The
            model is then left as it was.
    """
    if model.built:
        return
    layers = [model, *(layer for _, layer in layer_paths(model))]
    states = [_State(layer) for layer in layers if not layer.built]
    known = {id(weight) for weight in model.weights}
    inputs = keras.tree.map_structure(
        lambda array: keras.KerasTensor(
            (None, *array.shape[1:]), keras.backend.standardize_dtype(array.dtype)
        ),
        x,
    )
    try:
        with _refusing_weights() as refused, replicas.outside_programs():
            model(inputs, training=False)
        new = [weight.path for weight in model.weights if id(weight) not in known]
    except BaseException as error:
        for state in states:
            state.restore()
        # Keras may replace the error of `add_weight` by another one.
        if not refused:
            raise
        _refuse(model, role, f"layer {refused[0].name!r} would start", error)
    if refused or new:
        for state in states:
            state.restore()
        what = f"layer {refused[0].name!r}" if refused else f"weight {new[0]!r}"
        _refuse(model, role, f"{what} would start")


def _refuse(
    model: keras.Model, role: str, what: str, error: BaseException | None = None
) -> None:
    raise ValueError(
        f"The {role} {model.name!r} has no weights yet. Train it or load its weights "
        f"before distilling from it: its {what} with random numbers."
    ) from error


class _NewWeightsError(Exception):
    """A layer asked for new weights."""


@contextlib.contextmanager
def _refusing_weights() -> Iterator[list[keras.layers.Layer]]:
    """A context in which layers cannot create weights. Yields those that tried."""
    refused: list[keras.layers.Layer] = []
    thread = threading.get_ident()
    with _lock:
        add_weight = keras.layers.Layer.add_weight

        def refuse(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != thread:
                return add_weight(layer, *args, **kwargs)
            refused.append(layer)
            raise _NewWeightsError(layer.name)

        keras.layers.Layer.add_weight = refuse
        try:
            yield refused
        finally:
            keras.layers.Layer.add_weight = add_weight


class _State:
    """The attributes of an unbuilt layer, to restore them."""

    def __init__(self, layer: keras.layers.Layer) -> None:
        tracker = keras_private.tracker(layer)
        self.attributes = [
            (vars(owner), dict(vars(owner))) for owner in (layer, tracker)
        ]
        # Keras and torch also add to the containers that track sublayers.
        self.contents = [
            (value, value.copy())
            for _, before in self.attributes
            for value in (*before.values(), *tracker.stored_ids.values())
            if type(value) in (list, dict, set)
        ]

    def restore(self) -> None:
        for attributes, before in self.attributes:
            attributes.clear()
            attributes.update(before)
        for container, before in self.contents:
            container.clear()
            (container.extend if isinstance(before, list) else container.update)(before)
