"""The `add_loss` values of layers, separate for each replica.

The replicas of `tf.distribute` in one process are threads that take turns. When a
replica waits for the others, as in synchronized batch normalization, the next replica
begins. Keras keeps one list of added losses per layer, which all replicas share, and
clears it whenever a replica begins.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from keras_dskd.features.layer_graph import layer_paths
from keras_dskd.internal import replicas
from keras_dskd.internal.types import Nested, Tensor


class StudentLosses(threading.local):
    """The `add_loss` values of the student's layers in this replica's latest pass.

    Each replica is a thread. Without replicas this is empty, because Keras then keeps
    the losses itself.
    """

    added: Sequence[Tensor] = ()


@contextlib.contextmanager
def per_replica_losses(*layers: keras.layers.Layer) -> Iterator[list[Tensor]]:
    """A context in which `add_loss` appends to a list of this replica.

    Args:
        *layers: Layers. The layers inside them are included.

    Yields:
        The list. Without replicas it stays empty, because Keras then keeps the losses
        itself.
    """
    added: list[Tensor] = []
    if replicas.current() is None:
        yield added
        return
    below = [found for layer in layers for _, found in layer_paths(layer)]
    each = {id(layer): layer for layer in (*layers, *below)}.values()
    with contextlib.ExitStack() as stack:
        for layer in each:
            stack.enter_context(_replacing_add_loss(layer, added))
        yield added


class _AddLoss:
    """Replaces a layer's `add_loss`."""

    def __init__(self, add_loss: Callable[[Any], None]) -> None:
        self.add_loss = add_loss
        self.lists: dict[int, list[Tensor]] = {}  # By thread.

    def __call__(self, loss: Nested) -> None:
        if threading.get_ident() in self.lists:
            self.lists[threading.get_ident()].extend(keras.tree.flatten(loss))
        else:
            self.add_loss(loss)


_lock = threading.Lock()


@contextlib.contextmanager
def _replacing_add_loss(
    layer: keras.layers.Layer, added: list[Tensor]
) -> Iterator[None]:
    # Bypass `Layer.__setattr__`: Keras and torch must not track the replacement.
    attributes, thread = vars(layer), threading.get_ident()
    with _lock:
        add_loss = attributes.setdefault("add_loss", _AddLoss(layer.add_loss))
        outer = add_loss.lists.get(thread)
        add_loss.lists[thread] = added
    try:
        yield
    finally:
        with _lock:
            if outer is None:
                del add_loss.lists[thread]
            else:
                add_loss.lists[thread] = outer
            if not add_loss.lists:
                del attributes["add_loss"]
