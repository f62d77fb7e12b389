"""A compiled loss of the rows with labels."""

import keras
from keras import ops

from keras_dskd.distiller.labeled_rows import current_rows
from keras_dskd.internal import replicas
from keras_dskd.internal.types import Nested, Tensor
from keras_dskd.ops.checks import is_same_shape
from keras_dskd.ops.samples import keep_rows


class LabeledLoss:
    """Computes a compiled loss as if a batch only held its rows with labels.

    Args:
        loss: The loss. If all rows have labels, it is called as Keras does.
    """

    def __init__(self, loss: keras.losses.Loss) -> None:
        self.loss = loss

    def __call__(
        self, y_true: Nested, y_pred: Nested, sample_weight: Tensor | None = None
    ) -> Tensor:
        """A scalar; 0 if no row has labels.

        Args:
            y_true: Labels, finite in all rows.
            y_pred: Predictions.
            sample_weight: Weights of rows or entries, or `None`.

        Raises:
            ValueError: If the loss has no value for each row.
        """
        rows = current_rows()
        if rows is None:
            return self.loss(y_true, y_pred, sample_weight)
        rows.is_used = True
        values = self._values(y_true, y_pred, rows.mask)
        # 1 for values that count, 0 for rows without labels and for what Keras masks:
        # padded steps of the prediction, and values of an ignored class.
        ones = ops.ones_like(values, "float32")
        kept = _KerasMask()(ones, y_pred) * _KerasMask()(ones, values)
        kept = keep_rows(kept, rows.mask)
        weights = kept
        if sample_weight is not None:
            weights = kept * _of_rank(sample_weight, len(values.shape))
        values = keep_rows(ops.cast(values, "float32"), rows.mask)
        total = ops.sum(values * weights)
        reduction = self.loss.reduction
        if reduction == "sum":
            return ops.cast(total, self.loss.dtype)
        divisor = ops.sum(weights if reduction == "mean_with_sample_weight" else kept)
        mean = rows.replica_share * ops.divide_no_nan(total, divisor)
        # Keras divides means by the number of replicas, too.
        return ops.cast(replicas.gradient_share(mean), self.loss.dtype)

    def _values(self, y_true: Nested, y_pred: Nested, mask: Tensor) -> Tensor:
        """The values of all rows, `(n, ...)`, with the Keras mask of the loss."""
        loss = self.loss
        if type(loss).__call__ is not keras.losses.Loss.__call__:
            raise ValueError(
                f"The compiled loss {loss.name!r} has its own `__call__`, so that "
                'x["label_mask"] cannot leave out rows. Override `call` instead, and '
                "return one value per row."
            )
        if loss.reduction in (None, "none"):
            raise ValueError(
                f"The compiled loss {loss.name!r} needs a reduction. Received: "
                f"reduction={loss.reduction!r}"
            )
        cast = keras.tree.map_structure(
            lambda each: ops.convert_to_tensor(each, dtype=loss.dtype),
            (y_true, y_pred),
        )
        if all(hasattr(each, "shape") and len(each.shape) == 1 for each in cast):
            # Keras's losses average over the last axis: give each row its own.
            cast = tuple(ops.expand_dims(each, -1) for each in cast)
        values = ops.convert_to_tensor(loss.call(*cast))
        if not values.shape or not is_same_shape(values.shape[:1], mask.shape):
            raise ValueError(
                f"The compiled loss {loss.name!r} must have one value per row, because "
                'x["label_mask"] leaves out rows. Received: values of shape '
                f"{tuple(values.shape)} for {mask.shape[0]} rows. Return a tensor "
                "(n, ...) and leave the mean over rows to Keras."
            )
        return values


class _KerasMask(keras.losses.Loss):
    """Multiplies values by the Keras mask of a tensor, as every loss of Keras does."""

    def __init__(self) -> None:
        super().__init__(reduction="none", dtype="float32")

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The values `y_true`, which Keras then multiplies by the mask of `y_pred`."""
        return y_true


def _of_rank(weight: Tensor, rank: int) -> Tensor:
    """Weights that broadcast to values of a rank."""
    weight = ops.cast(ops.convert_to_tensor(weight), "float32")
    while len(weight.shape) > rank and weight.shape[-1] == 1:
        weight = ops.squeeze(weight, -1)
    for _ in range(rank - len(weight.shape)):
        weight = ops.expand_dims(weight, -1)
    return weight
