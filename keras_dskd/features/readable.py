"""Which layers' outputs can be read in a forward pass: not those within loops."""

from collections.abc import Sequence

import keras
from keras import ops

from keras_dskd.features.layer_graph import layer_paths, operation_paths
from keras_dskd.internal.keras_private import is_rematerialized
from keras_dskd.internal.types import Nested


def check_readable(
    model: keras.Model, layer: keras.Operation, name: str
) -> keras.layers.TimeDistributed | None:
    """Raises `ValueError` if a layer's outputs do not last beyond its call.

    Args:
        model: The model that holds the layer.
        layer: The layer.
        name: Its name in errors.

    Returns:
        The `TimeDistributed` layer that runs this layer at every step. `None` if there
        is none.
    """
    below = [((), model), *layer_paths(model), *operation_paths(model)]
    holders = [
        [
            holder
            for holder_path, holder in below
            if path[: len(holder_path)] == holder_path
        ]
        for path, found in below
        if found is layer
    ]
    for holder in (holder for on_path in holders for holder in on_path):
        # JAX and TensorFlow would report tensors out of scope.
        if is_rematerialized(holder):
            raise ValueError(
                f'Tap "{name}" cannot be read: "{holder.name}" was made within a '
                "keras.RematScope, whose layers discard their outputs. Create the "
                "tapped layer, and the models that hold it, outside the scope."
            )
        if isinstance(holder, keras.layers.RNN) and holder is not layer:
            raise ValueError(
                f'Tap "{name}" cannot be read: it is inside the recurrent layer '
                f'"{holder.name}", which runs it in a loop over the steps. Tap '
                f'"{holder.name}", which returns its output at every step if it has '
                "return_sequences=True."
            )
    by_step = [
        [
            holder
            for holder in on_path
            if isinstance(holder, keras.layers.TimeDistributed) and holder is not layer
        ]
        for on_path in holders
    ]
    distinct = {id(holder): holder for found in by_step for holder in found}
    if not distinct:
        return None
    if len(distinct) > 1 or not all(by_step):
        where = ", ".join(f'"{holder.name}"' for holder in distinct.values())
        raise ValueError(
            f'Tap "{name}" cannot be read: it is inside the TimeDistributed layer '
            f"{where}, and also called elsewhere or inside several of them. Tap the "
            "outermost TimeDistributed layer."
        )
    return next(iter(distinct.values()))


def check_steps(
    layer: keras.layers.TimeDistributed,
    outputs: Sequence[Nested],
    steps: int,
    name: str,
) -> None:
    """Raises `ValueError` unless a `TimeDistributed` layer ran its steps one by one.

    Args:
        layer: The layer.
        outputs: What its calls returned.
        steps: How often it called the layer that it wraps.
        name: The name of the tap.
    """
    if len(outputs) > 1:
        raise ValueError(
            f'Tap "{name}" cannot be read: the TimeDistributed layer "{layer.name}" '
            f"was called {len(outputs)} times in one forward pass. Tap a call of it: "
            f'"{layer.name}#0".'
        )
    # Keras maps over the steps in one call if their number is unknown.
    if outputs and outputs[0].shape[1] != steps:
        raise ValueError(
            f'Tap "{name}" cannot be read: the TimeDistributed layer "{layer.name}" '
            "runs all steps in one mapped call, because the number of steps is "
            f"unknown. Give the model's input a fixed number of steps, or tap "
            f'"{layer.name}".'
        )


def check_in_scope(outputs: Nested, where: str) -> None:
    """Raises `ValueError` if outputs were made inside a loop or a mapped function."""
    for output in keras.tree.flatten(outputs):
        if isinstance(output, keras.KerasTensor) or not ops.is_tensor(output):
            continue
        problem: Exception | None = None
        # A graph keeps one iteration of a mapped function under this name.
        is_iteration = "loop_body/" in _graph_name(output)
        try:
            ops.expand_dims(output, 0)
        # The backends' errors for such tensors have no class in common.
        except Exception as error:
            problem = error
        if problem is not None or is_iteration:
            raise ValueError(
                f"{where} cannot be read: it runs inside a loop or a mapped function, "
                "such as keras.ops.vectorized_map, scan or while_loop, whose values do "
                "not last. Tap the layer that runs the loop."
            ) from problem


def _graph_name(output: Nested) -> str:
    try:
        return str(output.name)
    # Most tensors have no name; eager TensorFlow tensors raise.
    except (AttributeError, NotImplementedError):
        return ""
