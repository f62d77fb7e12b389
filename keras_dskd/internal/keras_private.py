"""All private names of Keras that this package uses, each in one function.

Public Keras has no equivalent for these; each docstring gives the reason. The names
exist in Keras 3.12.0 and 3.15.1, and the one of KerasCV in 0.9.0. When Keras releases a
new version, check this file first: run `pytest tests/unit/features tests/fit` on each
backend.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras

from keras_dskd.internal.types import Config, Tensor


def origin(tensor: keras.KerasTensor) -> tuple[keras.Operation, int, int]:
    """Where a symbolic tensor comes from: `(operation, call, index)`.

    `call` counts the operation's calls from 0 (`Operation.output` raises for a layer
    that is called several times), `index` the outputs of that call.
    """
    operation, call, index = tensor._keras_history
    return operation, call, index


def producer(tensor: keras.KerasTensor) -> keras.Operation:
    """The operation that made a symbolic tensor.

    `KerasTensor` publishes its shape and dtype, but not where it comes from.
    """
    return origin(tensor)[0]


def call_inputs(operation: keras.Operation, call: int) -> list[keras.KerasTensor]:
    """The symbolic tensors that one call of an operation read.

    `Operation.input` publishes them only for an operation that was called once.
    """
    return operation._inbound_nodes[call].input_tensors


def sublayers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers that a layer tracks as its own, one level down.

    `Model.layers` publishes them only for models.
    """
    return layer._flatten_layers(include_self=False, recursive=False)


def is_built(layer: keras.layers.Layer) -> bool:
    """Whether a layer and all layers inside it are built.

    The public `built` of a subclassed model may be true while its layers have no
    weights yet, and `Model.layers` holds only the layers one level down.
    """
    return all(each.built for each in layer._flatten_layers())


def build_metrics(model: keras.Model, y_true: Any, y_pred: Any) -> None:
    """Creates the compiled metrics, whose types may depend on the shape of the labels.

    Keras does so in the first step. Its public way to do it earlier is to compute them.

    Args:
        model: A compiled model.
        y_true: `KerasTensor`s of the labels.
        y_pred: `KerasTensor`s of the predictions.
    """
    metrics = model._compile_metrics
    if metrics is not None and not metrics.built:
        metrics.build(y_true, y_pred)


def wrap_compiled(
    model: keras.Model,
    wrap_loss: Callable[[keras.losses.Loss], Callable[..., Any]],
    wrap_update: Callable[[keras.metrics.Metric], Callable[..., Any]],
    wrap_mean: Callable[[keras.metrics.Metric], Callable[..., Any]],
) -> None:
    """Wraps the losses and metrics that `compile` was given, once Keras made them.

    Keras makes them from names, functions and objects in the first step, because the
    right function may depend on the shape of the labels. There is no public way to
    reach them.

    Args:
        model: A compiled model.
        wrap_loss: Maps a loss to what is called in its place.
        wrap_update: Maps a metric to what is called in the place of `update_state`.
        wrap_mean: The same for the means of the outputs' losses.
    """
    loss, metrics = model._compile_loss, model._compile_metrics
    if loss is not None:
        build_losses = loss.build

        def build(y_true: Any, y_pred: Any) -> None:
            build_losses(y_true, y_pred)
            loss._flat_losses = [
                each._replace(loss=wrap_loss(each.loss)) for each in loss._flat_losses
            ]
            for mean in loss.metrics:
                vars(mean)["update_state"] = wrap_mean(mean)

        loss.build = build
    if metrics is not None:
        build_metrics = metrics.build

        def build_all(y_true: Any, y_pred: Any) -> None:
            build_metrics(y_true, y_pred)
            for metric in metrics.metrics:
                vars(metric)["update_state"] = wrap_update(metric)

        metrics.build = build_all


def is_rematerialized(layer: keras.Operation) -> bool:
    """Whether a layer was made within a `keras.RematScope`.

    Rematerialized layers discard their outputs after the forward pass. Keras publishes
    the scope, but not which layers were made within it.
    """
    return bool(getattr(layer, "_remat_mode", None))


def keras_cv_generator(layer: keras.layers.Layer) -> Any:
    """The `tf.random.Generator` that a layer of KerasCV draws from.

    KerasCV's layers take no seed per call, so a repeatable
    draw must reset the generator.
    """
    return layer._random_generator


def forget_jax_state(model: keras.Model) -> None:
    """Drops the copy of the model's variables that the JAX trainer holds in an epoch.

    Otherwise the trainer would write deleted or older values back to the variables.
    """
    model._jax_state = None


def stateless_losses(model: keras.Model) -> list[Tensor] | None:
    """The `add_loss` values that Keras passes to `compute_loss` in a stateless scope.

    The JAX trainer collects them in `stateless_call`, and only `Layer.losses`, which
    the distiller overrides, reads them back.
    """
    return getattr(model, "_losses_override", None)


def compiled_arguments(model: keras.Model) -> Config:
    """The losses and metrics that a model's `compile` got, by argument; may be empty.

    A subclass's `compile` may take other arguments, and `get_compile_config` serializes
    them.
    """
    given = model._compile_config.config if model.compiled else {}
    names = ("loss", "loss_weights", "metrics", "weighted_metrics")
    return {name: given[name] for name in names if given.get(name) is not None}


def metrics_of_compile(model: keras.Model) -> list[keras.metrics.Metric]:
    """The metrics that `compile` made; `Model.metrics` mixes them with the others."""
    made = [model._loss_tracker, model._compile_metrics]
    return made + list(getattr(model._compile_loss, "metrics", ()))


_lock = threading.Lock()


@contextlib.contextmanager
def compiled_as(model: keras.Model, other: keras.Model) -> Iterator[None]:
    """A context in which a model has the loss and metrics compiled for another one.

    Keras's `compute_loss` and `compute_metrics` read them from private attributes. The
    replicas of `tf.distribute` are threads that may enter together: the last one to
    leave restores the model's own.
    """
    names = ("_compile_loss", "_compile_metrics", "compiled")
    lent = {name: getattr(other, name) for name in names}
    if other._losses_override:
        lent["_losses_override"] = list(other._losses_override)
    # Bypass `Layer.__setattr__`, which would track the metrics.
    attributes = vars(model)
    with _lock:
        own = {name: attributes[name] for name in lent}
        users, own = attributes.get("_lent", (0, own))
        attributes.update(lent, _lent=(users + 1, own))
    try:
        yield
    finally:
        with _lock:
            users, own = attributes.pop("_lent")
            attributes.update(own if users == 1 else {"_lent": (users - 1, own)})


def own_losses(layer: keras.layers.Layer) -> list[Tensor]:
    """The `add_loss` values of a layer itself, without those of the layers it holds."""
    return layer._get_own_losses()


def trainable_flag(model: keras.Model) -> bool:
    """The model's own `trainable` flag, for a subclass that overrides the property."""
    return model._trainable


def set_trainable_flag(model: keras.Model, value: bool) -> None:
    """Sets only the model's own `trainable` flag.

    Keras's setter passes the flag on to every layer and variable of the model.
    """
    model._trainable = value


def has_own_trainable_variables(model: keras.Model) -> bool:
    """Whether the model itself, without its layers, has trainable variables."""
    return bool(model._trainable_variables)


class ReplicaShapes(keras.Model):
    """A model that Keras's TensorFlow trainer builds from one replica's batch.

    Before the first step the trainer calls `_maybe_symbolic_build`. To learn the
    shapes, that method averages the batches of all replicas, which fails for bool
    arrays such as masks.
    """

    def _maybe_symbolic_build(
        self, iterator: Any = None, data_batch: Any = None
    ) -> None:
        strategy = self.distribute_strategy
        if iterator is not None and strategy.num_replicas_in_sync > 1:
            for _, _, batches in iterator:
                data_batch = keras.tree.map_structure(
                    lambda value: strategy.experimental_local_results(value)[0],
                    next(batches),
                )
                iterator = None
                break
        super()._maybe_symbolic_build(iterator, data_batch)


def tracker(layer: keras.layers.Layer) -> Any:
    """The object that records which variables and sublayers a layer holds.

    Building a layer locks it, and Keras publishes no way back.
    """
    return layer._tracker
