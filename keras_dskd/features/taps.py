"""Capture a layer's output in the forward pass that makes the prediction.

During the pass, a recorder replaces the `call` of that layer instance. This works in
eager and in traced code, without a second model or a second pass. After the pass the
recorder is removed, and the model is as before.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from keras_dskd.features.finding import find_output
from keras_dskd.features.layer_graph import layer_paths, operation_paths
from keras_dskd.internal.keras_private import is_rematerialized
from keras_dskd.internal.types import Nested

#: The key of a model's final output among its features.
OUTPUT = "(output)"


class Tap:
    """A layer's output, by name.

    Args:
        model: The `keras.Model` that holds the layer, at any depth.
        name: The layer's name if it is unique in the model; or enough of the end of its
            path to make it unique (`"stage2/conv1"`); or its whole path
            (`"backbone/stage2/conv1"`). If the forward pass calls the layer more than
            once, add the number of the call, from 0: `"head#1"`. If no layer has this
            name, it may be a feature-pyramid level (`keras_dskd.features.pyramid`):
            `"P3"`, or `"backbone/P3"` if several models have that level.

    Raises:
        ValueError: If no layer or several layers have that name, or the layer was made
            within a `keras.RematScope`: such layers discard their outputs.
    """

    def __init__(self, model: keras.Model, name: str) -> None:
        if not isinstance(name, str):
            raise ValueError(
                "A tap must be the name or path of a layer, as a string. Received: "
                f"{name!r} of type {type(name).__name__}"
            )
        self.model_name = model.name
        self.name = name
        path, _, call = name.partition("#")
        if call and not call.isdecimal():
            raise ValueError(
                "The call of a tap must be a number counted from 0, as in "
                f'"{path}#0". Received: "{name}"'
            )
        self.call = int(call) if call else None
        self.layer, self.output = find_output(model, path)
        _check_not_rematerialized(model, self.layer, name)

    def pick(self, outputs: list[Nested]) -> Nested:
        """The tapped output, given what each call of the layer returned in a pass."""
        where = f'Layer "{self.name.partition("#")[0]}" of model "{self.model_name}"'
        if not outputs:
            raise ValueError(
                f"{where} was not called in the forward pass. Tap a layer that the "
                "prediction depends on."
            )
        if self.call is None and len(outputs) > 1:
            raise ValueError(
                f"{where} was called {len(outputs)} times in one forward pass. Use "
                f'the name with the number of a call: "{self.name}#0" to '
                f'"{self.name}#{len(outputs) - 1}".'
            )
        if self.call is not None and self.call >= len(outputs):
            raise ValueError(
                f"{where} was called {len(outputs)} times in one forward pass. "
                f'Received: "{self.name}". Calls are counted from 0.'
            )
        output = outputs[self.call or 0]
        if self.output is None:
            return output
        return keras.tree.flatten(output)[self.output]


def _check_not_rematerialized(
    model: keras.Model, layer: keras.Operation, name: str
) -> None:
    """Raise if the layer, or a layer that holds it, discards its outputs.

    Without this check, JAX and TensorFlow report tensors out of scope.
    """
    below = [((), model), *layer_paths(model), *operation_paths(model)]
    paths = [path for path, found in below if found is layer]
    for holder_path, holder in below:
        if is_rematerialized(holder) and any(
            path[: len(holder_path)] == holder_path for path in paths
        ):
            raise ValueError(
                f'Tap "{name}" cannot be read: "{holder.name}" was made within a '
                "keras.RematScope, whose layers discard their outputs. Create the "
                "tapped layer, and the models that hold it, outside the scope."
            )


@contextlib.contextmanager
def capture(taps: Sequence[Tap]) -> Iterator[dict[str, Nested]]:
    """Capture layers' outputs during one forward pass of their model.

    ```python
    with capture([Tap(model, "block2"), Tap(model, "head#1")]) as features:
        prediction = model(x)
    features["block2"]
    ```

    Args:
        taps: `Tap`s of one model.

    Yields:
        A dict. When the context ends without an error, it is filled with the output of
        each tap, by the tap's name.

    Raises:
        ValueError: If a layer was not called, or was called more than once and its
            tap does not give the number of a call.
    """
    outputs: dict[int, list[Nested]] = {id(tap.layer): [] for tap in taps}
    features: dict[str, Nested] = {}
    with contextlib.ExitStack() as stack:
        for layer in {id(tap.layer): tap.layer for tap in taps}.values():
            stack.enter_context(_recording(layer, outputs[id(layer)]))
        yield features
    for tap in taps:
        features[tap.name] = tap.pick(outputs[id(tap.layer)])


class _Recorder:
    """Replaces a layer's `call` while at least one `capture` listens to it."""

    def __init__(self, call: Callable[..., Nested]) -> None:
        self.call = call
        self.listeners: list[tuple[int, list[Nested]]] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Nested:
        outputs = self.call(*args, **kwargs)
        thread = threading.get_ident()
        for listening_thread, heard in self.listeners:
            # `MirroredStrategy` runs each replica of a model in its own thread.
            if listening_thread == thread:
                heard.append(outputs)
        return outputs


_lock = threading.Lock()


@contextlib.contextmanager
def _recording(layer: keras.layers.Layer, outputs: list[Nested]) -> Iterator[None]:
    listener = (threading.get_ident(), outputs)
    # Bypass `Layer.__setattr__`: Keras and torch must not track the recorder.
    attributes = vars(layer)
    # Keras runs `quantized_call` instead of `call` in a quantized layer.
    is_quantized = getattr(layer, "quantization_mode", None) is not None
    method = "quantized_call" if is_quantized else "call"
    with _lock:
        call = getattr(layer, method)
        recorder = call if isinstance(call, _Recorder) else _Recorder(call)
        recorder.listeners.append(listener)
        attributes[method] = recorder
    try:
        yield
    finally:
        with _lock:
            recorder.listeners = [
                other for other in recorder.listeners if other is not listener
            ]
            if not recorder.listeners:
                _restore(layer, method, recorder)


def _restore(layer: keras.layers.Layer, method: str, recorder: _Recorder) -> None:
    attributes = vars(layer)
    del attributes[method]
    # Restore a `call` that was set on the instance before.
    if getattr(layer, method) != recorder.call:
        attributes[method] = recorder.call
