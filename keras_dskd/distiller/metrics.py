"""The terms' means over an epoch, in fit's logs."""

from collections.abc import Sequence

import keras
from keras import ops

from keras_dskd.internal.types import Tensor


class TermMeans(keras.metrics.Metric):
    """Mean of each of some named numbers, weighted by the samples that gave it.

    One metric for all, since each one costs a step several small operations.

    Args:
        names: The numbers' names.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(name="terms", dtype="float32")
        self.names = tuple(names)
        shape = (len(self.names),)
        self.totals = self.add_variable(shape, initializer="zeros", name="totals")
        self.counts = self.add_variable(shape, initializer="zeros", name="counts")

    def update_state(self, values: dict[str, Tensor], samples: Tensor) -> None:
        """Counts a batch.

        Args:
            values: Dict of name -> scalar; names may be missing.
            samples: Number of samples in the batch.
        """
        samples, none = ops.cast(samples, "float32"), ops.zeros(())
        totals = [samples * values.get(name, none) for name in self.names]
        counts = [samples if name in values else none for name in self.names]
        self.totals.assign(self.totals + ops.stack(totals))
        self.counts.assign(self.counts + ops.stack(counts))

    def result(self) -> dict[str, Tensor]:
        """Dict of name -> mean; 0 for a number that no batch had."""
        means = ops.divide_no_nan(self.totals, self.counts)
        return {name: means[index] for index, name in enumerate(self.names)}
