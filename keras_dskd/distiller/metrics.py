"""Means of the losses over an epoch, and which of them the logs report."""

import contextlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
from keras import ops

from keras_dskd.internal import replicas
from keras_dskd.internal.types import Tensor


class _Step(threading.local):
    """The step of this thread. `torch.compile` traces it, unlike a `ContextVar`."""

    #: Names of the losses that the step computes; `None` between steps.
    computed: frozenset[str] | None = None


_step = _Step()


class LossMeans(keras.metrics.Metric):
    """Mean of each of several named losses, weighted by the samples of each batch.

    One metric holds all of them, because each metric adds several small operations to
    the step.

    Args:
        names: Names of the losses.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(name="terms", dtype="float32")
        self.names = tuple(names)
        shape = (len(self.names),)
        self.totals = self.add_variable(shape, initializer="zeros", name="totals")
        self.counts = self.add_variable(shape, initializer="zeros", name="counts")

    def rename_losses(self, names: Sequence[str]) -> None:
        """Renames the last losses, those after the totals."""
        self.names = (*self.names[: len(self.names) - len(names)], *names)

    def update_state(
        self,
        values: dict[str, Tensor],
        samples: Tensor,
        labeled: Tensor | None = None,
    ) -> None:
        """Adds a batch.

        Args:
            values: Dict of name -> scalar. It may lack names.
            samples: Number of samples in the batch.
            labeled: Number of samples with labels. Defaults to `samples`.
        """
        samples, none = ops.cast(samples, "float32"), ops.zeros((), "float32")
        of_labels = {"student_loss"}
        if "distillation_loss" not in values:
            of_labels.add("total_loss")  # It is the student's loss.
        weights = [
            samples
            if labeled is None or name not in of_labels
            else ops.cast(labeled, "float32")
            for name in self.names
        ]
        totals = [
            weight * ops.cast(values.get(name, none), "float32")
            for weight, name in zip(weights, self.names, strict=True)
        ]
        counts = [
            weight if name in values else none
            for weight, name in zip(weights, self.names, strict=True)
        ]
        self.totals.assign(self.totals + ops.stack(totals))
        self.counts.assign(self.counts + ops.stack(counts))

    def result(self) -> dict[str, Tensor]:
        """Dict of name -> mean, 0 for a loss that no batch computed."""
        means = ops.unstack(ops.divide_no_nan(self.totals, self.counts))
        return dict(zip(self.names, means, strict=True))

    def computed(self, results: dict[str, Any]) -> dict[str, Any]:
        """The results, without losses that were not computed.

        Within a step, `reporting` names the computed losses. Between steps, they are
        the losses that have been counted since the last reset.
        """
        names = _step.computed
        if names is None:
            if replicas.is_traced(self.counts.value):
                return results
            counts = ops.convert_to_numpy(self.counts)
            counted = zip(self.names, counts, strict=True)
            names = frozenset(name for name, count in counted if count)
        # Keras's own mean of the total gives samples without labels the same weight.
        if "loss" in results and "total_loss" in results:
            results = {**results, "loss": results["total_loss"]}
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
    """A context that tells `LossMeans` which losses the current step computes."""
    outer, _step.computed = _step.computed, frozenset(names)
    try:
        yield
    finally:
        _step.computed = outer
