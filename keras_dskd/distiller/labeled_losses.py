"""A compiled loss of the rows with labels."""

import keras
from keras import ops

from keras_dskd.distiller.labeled_rows import current_rows
from keras_dskd.internal import keras_private, replicas
from keras_dskd.internal.types import Nested, Tensor
from keras_dskd.ops.checks import is_same_shape
from keras_dskd.ops.samples import keep_rows
from keras_dskd.ops.step_masks import all_of


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
        values, keep = self._values(y_true, y_pred, rows.mask)
        weight = _weight(keep, sample_weight, len(values.shape))
        total = ops.sum(values * weight)
        if self.loss.reduction == "sum":
            return ops.cast(total, self.loss.dtype)
        if self.loss.reduction == "mean_with_sample_weight" and (
            sample_weight is not None
        ):
            divisor = ops.sum(weight)
        else:
            # Each kept row or step holds the same number of values.
            kept = ops.cast(keep, "float32")
            divisor = _size(values) * ops.mean(kept)
        mean = rows.replica_share * ops.divide_no_nan(total, divisor)
        # Keras divides means by the number of replicas, too.
        return ops.cast(replicas.gradient_share(mean), self.loss.dtype)

    def _values(
        self, y_true: Nested, y_pred: Nested, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The values, float32 and 0 where they do not count, and which of them count.

        The second tensor is `(n,)`, or `(n, steps)` if the prediction has a step mask.
        """
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
        values = ops.convert_to_tensor(loss.call(*cast))
        if not values.shape or not is_same_shape(values.shape[:1], mask.shape):
            raise ValueError(
                f"The compiled loss {loss.name!r} must have one value per row, because "
                'x["label_mask"] leaves out rows. Received: values of shape '
                f"{tuple(values.shape)} for {mask.shape[0]} rows. Return a tensor "
                "(n, ...) and leave the mean over rows to Keras."
            )
        step_masks = [
            each
            for each in (keras_private.mask_of(y_pred), keras_private.mask_of(values))
            if each is not None and len(each.shape) <= len(values.shape)
        ]
        keep = all_of(*step_masks, mask)
        values = ops.cast(keep_rows(values, keep), "float32")
        return values, keep


def _weight(keep: Tensor, sample_weight: Tensor | None, rank: int) -> Tensor:
    """Weights that broadcast to values of a rank: 0 where values do not count."""
    kept = _of_rank(ops.cast(keep, "float32"), rank)
    if sample_weight is None:
        return kept
    weight = ops.cast(ops.convert_to_tensor(sample_weight), "float32")
    while len(weight.shape) > rank and weight.shape[-1] == 1:
        weight = ops.squeeze(weight, -1)
    return kept * _of_rank(weight, rank)


def _of_rank(tensor: Tensor, rank: int) -> Tensor:
    for _ in range(rank - len(tensor.shape)):
        tensor = ops.expand_dims(tensor, -1)
    return tensor


def _size(tensor: Tensor) -> Tensor:
    sizes = ops.convert_to_tensor(ops.shape(tensor), dtype="int32")
    return ops.cast(ops.prod(sizes), "float32")
