"""The rows of a step that have labels, for compiled losses and metrics."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from keras import ops

from keras_dskd.internal import replicas
from keras_dskd.internal.types import Tensor
from keras_dskd.ops.samples import count_rows


class LabeledRows:
    """The rows with labels in one step.

    Args:
        mask: Bool tensor `(n,)`, true for rows with labels.
        training: Whether it is a step of training. All replicas train together, but
            evaluation may run in only one of several processes.
    """

    def __init__(self, mask: Tensor, training: bool) -> None:
        self.mask = mask
        self.training = training
        #: Whether a compiled loss has left out the other rows.
        self.is_used = False

    @property
    def count(self) -> Tensor:
        """Number of the rows on all replicas of a step, a float32 scalar."""
        return count_rows(self.mask, self.mask, self._replicas)

    @property
    def replica_share(self) -> Tensor:
        """Factor that turns the mean of the replicas' values into the global mean.

        Formula: `(labeled_r / n_r) / (Σ labeled / Σ n)`; 1 without replicas. The step
        weights the value of each replica by its number of rows, `n_r`.
        """
        if self._replicas is None:
            return ops.ones((), "float32")
        own = ops.mean(ops.cast(self.mask, "float32"))
        everywhere = self.count / count_rows(self.mask, replicas=self._replicas)
        return ops.divide_no_nan(own, everywhere)

    @property
    def _replicas(self) -> Any:
        return replicas.current() if self.training else None


class _Current(threading.local):
    """The rows of this thread's step: each replica of `tf.distribute` is a thread.

    `torch.compile` traces it; a `ContextVar` would divide the compiled step.
    """

    rows: LabeledRows | None = None


_current = _Current()


@contextlib.contextmanager
def labeled_rows(
    mask: Tensor | None, training: bool = False
) -> Iterator[LabeledRows | None]:
    """A context in which compiled losses and metrics leave out rows without labels."""
    rows = None if mask is None else LabeledRows(mask, training)
    outer, _current.rows = _current.rows, rows
    try:
        yield rows
    finally:
        _current.rows = outer


def current_rows() -> LabeledRows | None:
    """The rows with labels in this step; `None` if all rows have labels."""
    return _current.rows
