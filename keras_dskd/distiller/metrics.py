"""Means of the losses over an epoch, and which of them the logs report."""

import contextlib
import contextvars
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
from keras import ops

from keras_dskd.internal import replicas
from keras_dskd.internal.types import Tensor

#: The names that the step in progress computes; `None` between steps.
_computed: contextvars.ContextVar[frozenset[str] | None] = contextvars.ContextVar(
    "computed", default=None
)


class LossMeans(keras.metrics.Metric):
    """Mean of each of several named losses, weighted by the samples of each batch.

    It is one metric for all of them, since each metric costs a step several small
    operations.

    Args:
        names: Names of the losses.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(name="terms", dtype="float32")
        self.names = tuple(names)
        shape = (len(self.names),)
        self.totals = self.add_variable(shape, initializer="zeros", name="totals")
        self.counts = self.add_variable(shape, initializer="zeros", name="counts")

    def update_state(self, values: dict[str, Tensor], samples: Tensor) -> None:
        """Adds a batch.

        Args:
            values: Dict of name -> scalar. It may lack names.
            samples: Number of samples in the batch.
        """
        samples, none = ops.cast(samples, "float32"), ops.zeros(())
        totals = [samples * values.get(name, none) for name in self.names]
        counts = [samples if name in values else none for name in self.names]
        self.totals.assign(self.totals + ops.stack(totals))
        self.counts.assign(self.counts + ops.stack(counts))

    def result(self) -> dict[str, Tensor]:
        """Dict of name -> mean, 0 for a name that no batch had."""
        means = ops.divide_no_nan(self.totals, self.counts)
        return {name: means[index] for index, name in enumerate(self.names)}

    def computed(self, results: dict[str, Any]) -> dict[str, Any]:
        """The results without the losses that no batch had.

        Within a step these are known from `reporting`. Between steps they are those
        counted since the last reset.
        """
        names = _computed.get()
        if names is None:
            if replicas.is_traced(self.counts.value):
                return results
            counts = ops.convert_to_numpy(self.counts)
            counted = zip(self.names, counts, strict=True)
            names = frozenset(name for name, count in counted if count)
        # Keras's own mean of the total.
        known = {*self.names, "loss"}
        if "total_loss" in names:
            names = names | {"loss"}
        return {
            name: result
            for name, result in results.items()
            if name in names or name not in known
        }


@contextlib.contextmanager
def reporting(names: Iterable[str]) -> Iterator[None]:
    """A context within a step that computes the losses of these names."""
    token = _computed.set(frozenset(names))
    try:
        yield
    finally:
        _computed.reset(token)
