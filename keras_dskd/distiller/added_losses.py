"""What layers `add_loss`, kept apart for each replica.

Replicas of `tf.distribute` in one process are threads that take turns: one that waits
for the others, as in synchronised batch normalization, lets the next begin. Keras keeps
what a layer adds in one list for all of them, and empties it whenever one begins.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras

from keras_dskd.features.layer_graph import layer_paths
from keras_dskd.internal import replicas
from keras_dskd.internal.types import Nested, Tensor


@contextlib.contextmanager
def kept_apart(*layers: keras.layers.Layer) -> Iterator[list[Tensor]]:
    """A context in which this replica's losses go to a list of its own.

    Args:
        *layers: Layers, with all below them.

    Yields:
        A list, to be read at any time, of what the layers added in this thread. Where
        there are no replicas it stays empty, and Keras keeps the losses.
    """
    added: list[Tensor] = []
    if replicas.current() is None:
        yield added
        return
    below = [found for layer in layers for _, found in layer_paths(layer)]
    each = {id(layer): layer for layer in (*layers, *below)}.values()
    with contextlib.ExitStack() as stack:
        for layer in each:
            stack.enter_context(_standing_in(layer, added))
        yield added


class _AddLoss:
    """Stands in for a layer's `add_loss`."""

    def __init__(self, add_loss: Callable[[Any], None]) -> None:
        self.add_loss = add_loss
        self.lists: dict[int, list[Tensor]] = {}  # Of each thread that keeps its own.

    def __call__(self, loss: Nested) -> None:
        if threading.get_ident() in self.lists:
            self.lists[threading.get_ident()].extend(keras.tree.flatten(loss))
        else:
            self.add_loss(loss)


_lock = threading.Lock()


@contextlib.contextmanager
def _standing_in(layer: keras.layers.Layer, added: list[Tensor]) -> Iterator[None]:
    # Past `Layer.__setattr__`, as a tap is.
    attributes, thread = vars(layer), threading.get_ident()
    with _lock:
        add_loss = attributes.setdefault("add_loss", _AddLoss(layer.add_loss))
        outer = add_loss.lists.get(thread)  # As where the student is a distiller.
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
