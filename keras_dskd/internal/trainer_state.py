"""Restore the variables that Keras's trainers hold when a step fails.

On JAX the trainer moves the variables' values into its own state and donates them to
each compiled step. If a loop fails, all variables stay empty, even the teacher's. Keras
would then read new values from their initializers.
"""

import contextlib
import itertools
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

from keras_dskd.internal import keras_private


def keeping_state(
    model: keras.Model, train_function: Callable[..., Any]
) -> Callable[..., Any]:
    """A training step that restores the model's variables if it raises.

    It may raise even in the first step of an epoch: because a loss does not fit its
    features, because the data ends, or at an interrupt.
    """
    if keras.backend.backend() != "jax" or hasattr(train_function, "keeps_state"):
        return train_function

    def step(state: Any, iterator: Iterator[Any]) -> tuple[Any, Any]:
        try:
            # Read the step's batches first: reading may take long, and must remain
            # interruptible.
            batches = list(itertools.islice(iterator, model.steps_per_execution))
            with delayed_interrupt():
                logs, state = train_function(state, iter(batches))
            return logs, state
        except BaseException:
            variables = (
                model.trainable_variables,
                model.non_trainable_variables,
                model.optimizer.variables,
                model.metrics_variables,
            )
            for group, values in zip(variables, state, strict=True):
                for variable, value in zip(group, values, strict=True):
                    if not value.is_deleted():
                        variable.assign(value)
            keras_private.forget_jax_state(model)
            raise

    step.keeps_state = True  # type: ignore[attr-defined]  # A mark on a function.
    return step


@contextlib.contextmanager
def keeping_values(model: keras.Model) -> Iterator[None]:
    """A context for `evaluate` or `predict` that restores the variables if it raises.

    On JAX it keeps a copy of the variables that the trainer removes. The copy fits in
    memory, because training needs more memory than that.
    """
    if keras.backend.backend() != "jax":
        yield
        return
    variables = [
        *model.trainable_variables,
        *model.non_trainable_variables,
        *model.metrics_variables,
    ]
    kept = [(variable, ops.copy(variable.value)) for variable in variables]
    try:
        with explaining_division():
            yield
    except BaseException:
        for variable, value in kept:
            variable.assign(value)
        keras_private.forget_jax_state(model)
        raise


@contextlib.contextmanager
def delayed_interrupt() -> Iterator[None]:
    """A context that delays an interrupt, such as Ctrl-C, until it ends.

    A compiled JAX step deletes its input values. If it is interrupted, it does not
    return new ones.
    """
    handler = signal.getsignal(signal.SIGINT)
    # Python calls handlers only in the main thread.
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or not callable(handler):
        yield
        return
    received = []
    signal.signal(signal.SIGINT, lambda *args: received.append(args))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if received:
        handler(*received[0])


@contextlib.contextmanager
def explaining_division() -> Iterator[None]:
    """A context that explains JAX's error for an indivisible batch.

    The devices of `keras.distribution` must share a batch equally.
    """
    try:
        yield
    except ValueError as error:
        distribution = keras.distribution.distribution()
        # JAX does not publish the class.
        if distribution is None or type(error).__name__ != "IndivisibleError":
            raise
        mesh = distribution.device_mesh
        parts = mesh.shape[mesh.axis_names.index(distribution.batch_dim_name)]
        raise ValueError(
            f"`keras.distribution` divides each batch into {parts} equal parts. Use a "
            f"`batch_size` that is a multiple of {parts}, and drop a smaller last "
            "batch: `keras_dskd.ArrayDataset(drop_remainder=True)` and "
            "`tf.data.Dataset.batch(drop_remainder=True)` do. Or use a mesh whose "
            "batch axis is 1, which gives each device the whole batch. Received: "
            f"{error}"
        ) from error


def sync(model: keras.Model) -> None:
    """Writes the values that the JAX trainer holds in an epoch to the variables."""
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()


def compile_step_again(model: keras.Model) -> None:
    """Recompiles the training step, if it has been compiled before."""
    if getattr(model, "train_function", None) is not None:
        model.make_train_function(force=True)
