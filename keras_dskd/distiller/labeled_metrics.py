"""Compiled metrics of the rows with labels."""

import functools
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_dskd.distiller.labeled_rows import current_rows
from keras_dskd.internal.types import Nested, Tensor

Update = Callable[..., Any]

#: Metrics that count entries of the labels: each entry needs its own weight.
_COUNTS_ENTRIES = (
    keras.metrics.AUC,
    keras.metrics.FalseNegatives,
    keras.metrics.FalsePositives,
    keras.metrics.IoU,
    keras.metrics.MeanIoU,
    keras.metrics.Precision,
    keras.metrics.PrecisionAtRecall,
    keras.metrics.Recall,
    keras.metrics.RecallAtPrecision,
    keras.metrics.SensitivityAtSpecificity,
    keras.metrics.SpecificityAtSensitivity,
    keras.metrics.TrueNegatives,
    keras.metrics.TruePositives,
)


def update_of_labeled(metric: keras.metrics.Metric) -> Update:
    """A metric's `update_state` that leaves out rows without labels.

    If all rows have labels, the metric is updated as Keras does.
    """
    update = functools.partial(type(metric).update_state, metric)

    def of_labeled(
        y_true: Nested, y_pred: Nested, sample_weight: Tensor | None = None
    ) -> Any:
        rows = current_rows()
        if rows is None:
            return update(y_true, y_pred, sample_weight=sample_weight)
        # IoU counts in integers.
        is_integer = keras.backend.is_int_dtype(metric.dtype)
        kept = ops.cast(rows.mask, "int32" if is_integer else "float32")
        weight = kept if sample_weight is None else _weight(kept, sample_weight)
        if isinstance(metric, _COUNTS_ENTRIES):
            weight = _of_entries(weight, y_true, getattr(metric, "sparse_y_true", True))
        try:
            return update(y_true, y_pred, sample_weight=weight)
        except Exception as error:
            raise ValueError(
                f"The metric {metric.name!r} cannot leave out the rows that "
                'x["label_mask"] marks as without labels: its `update_state` failed '
                "with one weight per row. Return one value per row from a function, "
                "and use `sample_weight` in a metric of your own. The error was: "
                f"{error}"
            ) from error

    return of_labeled


def update_of_mean(mean: keras.metrics.Mean) -> Update:
    """The `update_state` of a mean over batches, weighted by their rows with labels."""
    update = functools.partial(type(mean).update_state, mean)

    def of_labeled(value: Tensor, sample_weight: Any = None) -> Any:
        rows = current_rows()
        return update(value, sample_weight if rows is None else rows.count)

    return of_labeled


def _weight(kept: Tensor, sample_weight: Tensor) -> Tensor:
    weight = ops.cast(ops.convert_to_tensor(sample_weight), "float32")
    shape = (-1, *(1 for _ in weight.shape[1:]))
    return ops.reshape(ops.cast(kept, "float32"), shape) * weight


def _of_entries(weight: Tensor, y_true: Tensor, sparse: bool) -> Tensor:
    """Weights for each entry of the labels; for each position if they are one-hot."""
    shape = ops.shape(y_true) if sparse else ops.shape(y_true)[:-1]
    if len(weight.shape) > len(shape):
        return weight
    for _ in range(len(shape) - len(weight.shape)):
        weight = ops.expand_dims(weight, -1)
    return ops.broadcast_to(weight, shape)
