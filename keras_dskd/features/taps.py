"""Read a layer's output from the very forward pass that makes the prediction.

For the length of one forward pass the layer's `call` is shadowed, on that instance,
by a recorder. It runs where the layer runs, eager or traced, so that there is no
second model and no second pass; nothing stays on the model afterwards.
"""

import contextlib
import difflib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from keras_dskd.features import pyramid
from keras_dskd.features.layer_graph import Names, layer_paths, operation_paths
from keras_dskd.internal.keras_private import is_rematerialized
from keras_dskd.internal.types import Nested

#: The key of a model's final output among its features.
OUTPUT = "(output)"


class Tap:
    """A layer's output, by name.

    Args:
        model: The `keras.Model` that holds the layer, at any depth.
        name: The layer's name where it is unique, or the end of its path that
            makes it unique (`"stage2/conv1"`), or its whole path
            (`"backbone/stage2/conv1"`). For a layer that is called more than once
            in a forward pass, add the call, counted from 0: `"head#1"`. Where no
            layer has the name, a level of a feature pyramid
            (`keras_dskd.features.pyramid`): `"P3"`, or `"backbone/P3"` where several
            models have it.

    Raises:
        ValueError: If no layer or more than one has that name, or the layer's output
            is rematerialised (`keras.RematScope`), so that it is gone after the pass.
    """

    def __init__(self, model: keras.Model, name: str) -> None:
        if not isinstance(name, str):
            raise ValueError(
                "A tap is the name or path of a layer. Received: "
                f"{name!r} of type {type(name).__name__}"
            )
        self.model_name = model.name
        self.name = name
        path, _, call = name.partition("#")
        if call and not call.isdecimal():
            raise ValueError(
                f'The call of a tap is a number counted from 0, as in "{path}#0". '
                f'Received: "{name}"'
            )
        self.call = int(call) if call else None
        self.layer, self.output = find_output(model, path)
        _check_not_rematerialized(model, self.layer, name)

    def pick(self, outputs: list[Nested]) -> Nested:
        """The tapped one among the layer's outputs of one forward pass."""
        where = f'Layer "{self.name.partition("#")[0]}" of model "{self.model_name}"'
        if not outputs:
            raise ValueError(
                f"{where} was not called in the forward pass, so that it has no "
                "output to tap. Tap a layer that the prediction depends on."
            )
        if self.call is None and len(outputs) > 1:
            raise ValueError(
                f"{where} was called {len(outputs)} times in one forward pass. Say "
                f'which call to tap, counted from 0: "{self.name}#0" to '
                f'"{self.name}#{len(outputs) - 1}".'
            )
        if self.call is not None and self.call >= len(outputs):
            raise ValueError(
                f"{where} was called {len(outputs)} times in one forward pass. "
                f'Received: "{self.name}", and calls are counted from 0.'
            )
        output = outputs[self.call or 0]
        if self.output is None:
            return output
        return keras.tree.flatten(output)[self.output]


def find_layer(model: keras.Model, path: str) -> keras.layers.Layer:
    """The layer of that name or path. See `Tap`.

    Raises:
        ValueError: If no layer or more than one fits.
    """
    return find_output(model, path)[0]


def find_output(model: keras.Model, path: str) -> tuple[keras.Operation, int | None]:
    """The layer of that name or path, and which of its outputs. See `Tap`.

    Returns:
        `(layer, index)`. The index is that among the layer's outputs, flattened, for a
        pyramid level, and `None` for a layer by its own name: the output as it is.

    Raises:
        ValueError: If no layer or more than one fits.
    """
    layers, wanted = layer_paths(model), tuple(path.split("/"))
    named = _named(model, path, layers) or _named(model, path, operation_paths(model))
    if named:
        return named[0], None
    if pyramid.is_level(model, wanted[-1]):
        holder = find_layer(model, "/".join(wanted[:-1])) if wanted[1:] else model
        try:
            return pyramid.find_level(holder, wanted[-1])
        except ValueError as error:
            raise ValueError(
                f'Tap "{path}" in model "{model.name}": no layer has that name, and as '
                f"a pyramid level it is not clear. {error}"
            ) from error
    raise ValueError(
        f'Tap "{path}" not found in model "{model.name}". '
        + _closest(path, [layer_path for layer_path, _ in layers])
    )


def _named(
    model: keras.Model, path: str, found: Sequence[tuple[Names, keras.Operation]]
) -> list[keras.Operation]:
    """The one among the `(path, layer)` found that has the name, in a list, or none."""
    wanted = tuple(path.split("/"))
    exact = {id(layer): layer for layer_path, layer in found if layer_path == wanted}
    if len(exact) == 1:
        return list(exact.values())
    matches = {
        id(layer): (layer_path, layer)
        for layer_path, layer in reversed(found)
        if layer_path[-len(wanted) :] == wanted
    }
    if len(matches) > 1:
        paths = sorted(
            f'"{"/".join(layer_path)}"' for layer_path, _ in matches.values()
        )
        raise ValueError(
            f'Tap "{path}" is ambiguous in model "{model.name}". Received a name of '
            f"{len(paths)} layers. Use a path: {', '.join(paths)}."
        )
    return [layer for _, layer in matches.values()]


def _check_not_rematerialized(
    model: keras.Model, layer: keras.Operation, name: str
) -> None:
    below = [*layer_paths(model), *operation_paths(model)]
    paths = [path for path, found in below if found is layer]
    holders = [
        found
        for path, found in below
        if any(whole[: len(path)] == path for whole in paths)
    ]
    for holder in (model, *holders):
        if is_rematerialized(holder):
            raise ValueError(
                f'Tap "{name}" cannot be read: "{holder.name}" was made within a '
                "keras.RematScope, whose layers keep no outputs. Make the tapped "
                "layer, and the models that hold it, outside of the scope."
            )


def _closest(path: str, layer_paths: list[Names]) -> str:
    whole = ["/".join(layer_path) for layer_path in layer_paths]
    names = list(dict.fromkeys(whole + [layer_path[-1] for layer_path in layer_paths]))
    close = difflib.get_close_matches(path, names, n=3, cutoff=0.5)
    if close:
        return "Did you mean " + " or ".join(f'"{name}"' for name in close) + "?"
    more = ", ..." if len(whole) > 20 else ""
    return f"Its layers are: {', '.join(whole[:20])}{more}."


@contextlib.contextmanager
def capture(taps: Sequence[Tap]) -> Iterator[dict[str, Nested]]:
    """Captures layers' outputs during one forward pass of their model.

    ```python
    with capture([Tap(model, "block2"), Tap(model, "head#1")]) as features:
        prediction = model(x)
    features["block2"]
    ```

    Args:
        taps: `Tap`s of one model.

    Yields:
        A dict, filled with name -> output when the context ends without error.

    Raises:
        ValueError: If a layer was called more than once and its tap does not say
            which call, or if it was not called at all.
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
    """Stands in for a layer's `call` while anyone records its outputs."""

    def __init__(self, call: Callable[..., Nested]) -> None:
        self.call = call
        self.listeners: list[tuple[int, list[Nested]]] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Nested:
        outputs = self.call(*args, **kwargs)
        thread = threading.get_ident()
        for listening_thread, heard in self.listeners:
            # Replicas of one model run in threads of their own.
            if listening_thread == thread:
                heard.append(outputs)
        return outputs


_lock = threading.Lock()


@contextlib.contextmanager
def _recording(layer: keras.layers.Layer, outputs: list[Nested]) -> Iterator[None]:
    listener = (threading.get_ident(), outputs)
    # Written past `Layer.__setattr__`: bookkeeping of Keras and torch must not see it.
    attributes = vars(layer)
    # Keras calls a quantised layer by another name.
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
    # A `call` that somebody set on the instance before goes back to its place.
    if getattr(layer, method) != recorder.call:
        attributes[method] = recorder.call
