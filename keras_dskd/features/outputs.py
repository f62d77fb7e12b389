"""One of several outputs of a layer: pick it, or say how to name it."""

import inspect
from typing import Any

import keras

from keras_dskd.features.finding import find
from keras_dskd.features.layer_graph import has_graph
from keras_dskd.features.teachers import StoredTeacher
from keras_dskd.internal.types import Nested

#: The name of the attention scores of a layer that can return them.
SCORES = "scores"


def returns_scores(layer: keras.Operation) -> bool:
    """Whether a layer returns its attention scores if its `call` is asked to."""
    return "return_attention_scores" in inspect.signature(layer.call).parameters


def symbolic_outputs(model: keras.Model, name: str | None) -> Nested:
    """The symbolic outputs that a name refers to, as far as the graph shows them.

    Args:
        model: A `keras.Model`.
        name: Name of a layer, as for a `Tap`. Empty or `None` for the final output.

    Returns:
        `KerasTensor`s in the structure of the outputs. `None` if they are unknown.
    """
    if isinstance(model, StoredTeacher):
        return None
    if not name:
        if not has_graph(model):
            return None
        is_chain = isinstance(model, keras.Sequential)
        return model.outputs[0] if is_chain else model.output
    found = find(model, name)
    outputs = _output_of(found.layer)
    if found.output is None or outputs is None:
        return outputs
    if found.output == SCORES and returns_scores(found.layer):
        return None
    return pick_output(outputs, found.output, name)


def check_one(outputs: Nested, name: str | None, of: str) -> None:
    """Raises `ValueError` if these are several outputs.

    Args:
        outputs: What a layer or a model returned.
        name: Its name, without an output. Empty or `None` for the final output.
        of: What holds the layer, such as `'the teacher "resnet"'`.
    """
    if not keras.tree.is_nested(outputs):
        return
    what = f'Layer "{name}" of {of}' if name else of[:1].upper() + of[1:]
    raise ValueError(
        f"{what} returns a {type(outputs).__name__} of {len(outputs)}, and one output "
        f"is needed. Name one: {listed(outputs, name or '')}."
    )


def pick_output(outputs: Nested, output: int | str, name: str) -> Nested:
    """One of a layer's outputs.

    Args:
        outputs: What the layer returned.
        output: Index into the flattened outputs, or a key.
        name: The full name, for the error.

    Raises:
        ValueError: If there is no such output.
    """
    if isinstance(outputs, dict) and output in outputs:
        return outputs[output]
    flat = keras.tree.flatten(outputs)
    if isinstance(output, int) and output < len(flat):
        return flat[output]
    raise ValueError(
        f'Tap "{name}" not found: the layer has no such output. Its outputs are: '
        f"{listed(outputs, name.rpartition(':')[0])}."
    )


def listed(outputs: Nested, name: str) -> str:
    """The name and shape of each output."""
    if isinstance(outputs, dict):
        named = {str(key): value for key, value in outputs.items()}
    else:
        named = {str(i): value for i, value in enumerate(keras.tree.flatten(outputs))}
    return ", ".join(f'"{name}:{key}" {_shape(value)}' for key, value in named.items())


def _shape(output: Any) -> str:
    if keras.tree.is_nested(output):
        return "with several outputs"
    return f"with shape {tuple(output.shape)}"


def _output_of(layer: keras.Operation) -> Nested:
    try:
        return layer.output
    # The layer was never called in a graph, or was called more than once.
    except (AttributeError, ValueError):
        return None
