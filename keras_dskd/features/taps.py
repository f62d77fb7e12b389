"""Capture a layer's output in the forward pass that makes the prediction.

During the pass, a recorder replaces the `call` of that layer instance. This works in
eager and in traced code, without a second model or a second pass. After the pass the
recorder is removed, and the model is as before.
"""

import contextlib
import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras

from keras_dskd.features.finding import find
from keras_dskd.features.outputs import (
    SCORES,
    pick_output,
    returns_scores,
    symbolic_outputs,
)
from keras_dskd.features.readable import check_in_scope, check_readable, check_steps
from keras_dskd.features.step_masks import LayerCall, StepMasks
from keras_dskd.internal import feature_names
from keras_dskd.internal.types import Nested

#: The key of a model's final output among its features.
OUTPUT = feature_names.OUTPUT


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

            Of a layer with several outputs, add the number of one, from 0, or its key
            in a dict: `"lstm:1"`, `"lstm#0:1"`, `"detector:boxes"`. `":1"` is an output
            of the model itself. `"attention:scores"` are the attention scores of a
            layer whose `call` has the argument `return_attention_scores`, such as
            `keras.layers.MultiHeadAttention`, whether or not the model asks for them.

            A layer inside `keras.layers.TimeDistributed` gives the outputs of all
            steps, `(n, steps, ...)`.

    Raises:
        ValueError: If no layer or several layers have that name, the layer has no such
            output, or its outputs cannot be read: it is inside a recurrent layer, or
            was made within a `keras.RematScope`.
    """

    def __init__(self, model: keras.Model, name: str) -> None:
        if not isinstance(name, str):
            raise ValueError(
                "A tap must be the name or path of a layer, as a string. Received: "
                f"{name!r} of type {type(name).__name__}"
            )
        self.model_name = model.name
        self.name = name
        self.layer, self.call, self.output, self.path = find(model, name)
        self.reads_scores = self.output == SCORES and returns_scores(self.layer)
        self.steps_layer = check_readable(model, self.layer, name)
        symbolic_outputs(model, name)  # Raises if the graph shows no such output.

    def pick(self, calls: "list[_Call]", steps: int | None = None) -> Nested:
        """The tapped output, given each call of the layer in a pass.

        Args:
            calls: The calls, in order.
            steps: How often `TimeDistributed` ran the layer that it wraps.
        """
        where = f'Layer "{self.path}" of model "{self.model_name}"'
        if not calls:
            raise ValueError(
                f"{where} was not called in the forward pass. Tap a layer that the "
                "prediction depends on."
            )
        count = len(calls) // (steps or 1)
        when = "one forward pass" if steps is None else "a step"
        if steps and len(calls) % steps:
            raise ValueError(
                f"{where} was called {len(calls)} times in {steps} steps of "
                f'"{getattr(self.steps_layer, "name", "")}". Tap a layer that each '
                "step calls."
            )
        if self.call is None and count > 1:
            output = self.name.removeprefix(self.path)
            raise ValueError(
                f"{where} was called {count} times in {when}. Use the name with the "
                f'number of a call: "{self.path}#0{output}" to '
                f'"{self.path}#{count - 1}{output}".'
            )
        if self.call is not None and self.call >= count:
            raise ValueError(
                f"{where} was called {count} times in {when}. "
                f'Received: "{self.name}". Calls are counted from 0.'
            )
        picked = [self._pick_output(call) for call in calls[self.call or 0 :: count]]
        check_in_scope(picked, where)
        if steps is None:
            return picked[0]
        return keras.tree.map_structure(
            lambda *outputs: keras.ops.stack(outputs, axis=1), *picked
        )

    def _pick_output(self, call: "_Call") -> Nested:
        if self.reads_scores:
            return call.scores
        if self.output is None:
            return call.outputs
        return pick_output(call.outputs, self.output, self.name)


class _Call(NamedTuple):
    """What one call of a layer returned."""

    outputs: Nested
    scores: Nested = None


@contextlib.contextmanager
def capture(
    taps: Sequence[Tap], masks: StepMasks | None = None
) -> Iterator[dict[str, Nested]]:
    """Capture layers' outputs during one forward pass of their model.

    ```python
    with capture([Tap(model, "block2"), Tap(model, "head#1")]) as features:
        prediction = model(x)
    features["block2"]
    ```

    Args:
        taps: `Tap`s of one model.
        masks: Receives the Keras masks of the captured outputs.

    Yields:
        A dict. When the context ends without an error, it is filled with the output of
        each tap, by the tap's name.

    Raises:
        ValueError: If a layer was not called, was called more than once and its tap
            does not give the number of a call, or has no such output.
    """
    masks = StepMasks() if masks is None else masks
    features: dict[str, Nested] = {}
    listeners: dict[int, _Listener] = {}
    with contextlib.ExitStack() as stack:

        def listen(layer: keras.layers.Layer, reads_scores: bool = False) -> None:
            if id(layer) not in listeners:
                listeners[id(layer)] = _Listener(threading.get_ident(), masks)
                stack.enter_context(_recording(layer, listeners[id(layer)]))
            listeners[id(layer)].reads_scores |= reads_scores

        for tap in taps:
            listen(tap.layer, tap.reads_scores)
            if tap.steps_layer is not None:
                listen(tap.steps_layer)
                listen(tap.steps_layer.layer)
        yield features
    calls = {key: listener.calls for key, listener in listeners.items()}
    for tap in taps:
        steps = None
        if tap.steps_layer is not None:
            outputs = [call.outputs for call in calls[id(tap.steps_layer)]]
            steps = len(calls[id(tap.steps_layer.layer)])
            check_steps(tap.steps_layer, outputs, steps, tap.name)
        features[tap.name] = tap.pick(calls[id(tap.layer)], steps)
        if steps is not None:
            (mask,) = masks.get(keras.tree.flatten(outputs)[:1])
            stacked = keras.tree.flatten(features[tap.name])
            masks.add(stacked, [mask] * len(stacked))


class _Listener:
    """Collects a layer's calls in one thread."""

    def __init__(self, thread: int, masks: StepMasks) -> None:
        self.thread = thread
        self.masks = masks
        self.reads_scores = False
        self.calls: list[_Call] = []


class _Recorder:
    """Replaces a layer's `call` while at least one `capture` listens to it."""

    def __init__(self, layer: keras.layers.Layer, call: Callable[..., Nested]) -> None:
        self.layer = layer
        self.call = call
        self.listeners: list[_Listener] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Nested:
        # `MirroredStrategy` runs each replica of a model in its own thread.
        thread = threading.get_ident()
        listeners = [each for each in self.listeners if each.thread == thread]
        if not listeners:
            return self.call(*args, **kwargs)
        given = LayerCall(args, kwargs)
        if any(listener.reads_scores for listener in listeners):
            heard = self._with_scores(*args, **kwargs)
        else:
            heard = _Call(self.call(*args, **kwargs))
        for listener in listeners:
            listener.calls.append(heard)
            listener.masks.add_call(self.layer, given, heard.outputs)
        return heard.outputs

    def _with_scores(self, *args: Any, **kwargs: Any) -> _Call:
        """Runs an attention layer once, and returns what its caller asked for."""
        given = inspect.signature(self.call).bind(*args, **kwargs)
        returns_both = given.arguments.get("return_attention_scores", False)
        given.arguments["return_attention_scores"] = True
        both = self.call(*given.args, **given.kwargs)
        return _Call(both if returns_both else both[0], scores=both[1])


_lock = threading.Lock()


@contextlib.contextmanager
def _recording(layer: keras.layers.Layer, listener: _Listener) -> Iterator[None]:
    # Bypass `Layer.__setattr__`: Keras and torch must not track the recorder.
    attributes = vars(layer)
    # Keras runs `quantized_call` instead of `call` in a quantized layer.
    is_quantized = getattr(layer, "quantization_mode", None) is not None
    method = "quantized_call" if is_quantized else "call"
    with _lock:
        call = getattr(layer, method)
        recorder = call if isinstance(call, _Recorder) else _Recorder(layer, call)
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
