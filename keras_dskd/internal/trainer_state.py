"""What a model holds is whole again when a step of it fails, on JAX too."""

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
    """A step of training that leaves the model as it was if it raises.

    On JAX the trainer takes the values out of a model's variables for the length of an
    epoch. An error in its first step, such as that of a loss that does not fit, or the
    end of the data before it, would leave them empty: the teacher's too. So would an
    interrupt while a compiled step runs, which deletes the values that it is given and
    then cannot return the new ones.
    """
    if keras.backend.backend() != "jax" or hasattr(train_function, "keeps_state"):
        return train_function

    def step(state: Any, iterator: Iterator[Any]) -> tuple[Any, Any]:
        try:
            # As many as the step would read: data may keep one waiting for long.
            batches = list(itertools.islice(iterator, model.steps_per_execution))
            with waiting():
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
    """A context of `evaluate` or `predict`; if it raises, the model is as before.

    On JAX the trainer takes the values out of a model's variables until it is through,
    and each compiled step deletes those that it is given. Whatever stops it, data that
    do not fit, a lack of memory or an interrupt, would leave the variables empty, and
    Keras would go on with new random numbers. So a copy of the values is kept, for
    which there is room: training takes more.
    """
    if keras.backend.backend() != "jax":
        yield
        return
    variables = [*model.variables, *model.metrics_variables]
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
def waiting() -> Iterator[None]:
    """A context at whose end an interrupt is raised that came in its midst."""
    handler = signal.getsignal(signal.SIGINT)
    # Python calls handlers in the main thread alone.
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or not callable(handler):
        yield
        return
    came = []
    signal.signal(signal.SIGINT, lambda *args: came.append(args))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if came:
        handler(*came[0])


@contextlib.contextmanager
def explaining_division() -> Iterator[None]:
    """A context that says what to do about a batch that devices do not divide.

    Under `keras.distribution` JAX refuses it in words about its own shardings.
    """
    try:
        yield
    except ValueError as error:
        distribution = keras.distribution.distribution()
        # (JAX does not publish the class.)
        if distribution is None or type(error).__name__ != "IndivisibleError":
            raise
        mesh = distribution.device_mesh
        shares = mesh.shape[mesh.axis_names.index(distribution.batch_dim_name)]
        raise ValueError(
            f"`keras.distribution` divides each batch into {shares} parts of one size. "
            f"Use a `batch_size` that {shares} divides, and leave out a last batch "
            "that it does not, as `keras_dskd.ArrayDataset(drop_remainder=True)` and "
            "`tf.data.Dataset.batch(drop_remainder=True)` do. Or give all devices the "
            "whole batch: a mesh whose batch axis is 1 takes any. Received: "
            f"{error}"
        ) from error


def sync(model: keras.Model) -> None:
    """Updates the model's variables: the JAX trainer holds their values in an epoch."""
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()


def compile_step_again(model: keras.Model) -> None:
    """Compiles the training step again, if it has been compiled."""
    if getattr(model, "train_function", None) is not None:
        model.make_train_function(force=True)
