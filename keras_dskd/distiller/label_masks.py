"""Batches of which some rows have no labels: `x["label_mask"]`."""

from typing import Any

import keras

from keras_dskd.data import pairs
from keras_dskd.distiller.labeled_losses import LabeledLoss
from keras_dskd.distiller.labeled_metrics import update_of_labeled, update_of_mean
from keras_dskd.distiller.labeled_rows import LabeledRows, labeled_rows
from keras_dskd.distiller.student_rules import FollowsStudent, overrides
from keras_dskd.internal import keras_private
from keras_dskd.internal.types import Nested, Tensor
from keras_dskd.ops.samples import keep_rows


def label_mask(x: Nested) -> Tensor | None:
    """Which rows of a batch have labels: a bool tensor `(n,)`, or `None` for all."""
    return pairs.row_mask(pairs.split(x), "label_mask")


def labels_of(y: Nested, mask: Tensor | None) -> Nested:
    """The labels, with zeros for rows without labels, whose values may be NaN or -1."""
    if mask is None:
        return y
    return keras.tree.map_structure(
        lambda labels: None if labels is None else keep_rows(labels, mask), y
    )


def count_of_labeled(x: Nested, training: bool) -> Tensor | None:
    """Number of rows with labels, `None` for all: of all replicas if they train."""
    mask = label_mask(x)
    return None if mask is None else LabeledRows(mask, training).count


class ReadsLabelMask(FollowsStudent):
    """A model whose compiled losses and metrics leave out rows without labels."""

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As `keras.Model.compile`. See `FollowsStudent`."""
        super().compile(*args, **kwargs)
        keras_private.wrap_compiled(
            self, LabeledLoss, update_of_labeled, update_of_mean
        )

    def compute_student_loss(
        self,
        x: Nested,
        y: Nested,
        prediction: Nested,
        sample_weight: Nested,
        training: bool,
    ) -> Tensor:
        """The student's loss on the rows with labels. See `FollowsStudent`.

        Raises:
            ValueError: If the student's own `compute_loss` computes a loss of all rows.
        """
        mask = label_mask(x)
        with labeled_rows(mask, training) as rows:
            loss = super().compute_student_loss(
                x, labels_of(y, mask), prediction, sample_weight, training
            )
        has_own = overrides(self.student, "compute_loss")
        if rows is not None and has_own and not rows.is_used:
            raise ValueError(
                f"The `compute_loss` of {type(self.student).__name__} does not use the "
                'compiled loss, so that x["label_mask"] cannot leave out rows. Call '
                "`super().compute_loss` there, or leave out the mask."
            )
        return loss

    def compute_metrics(
        self, x: Nested, y: Nested, y_pred: Nested, sample_weight: Nested = None
    ) -> dict[str, Any]:
        """The metrics of a step on the rows with labels. See `FollowsStudent`."""
        mask = label_mask(x)
        with labeled_rows(mask):
            return super().compute_metrics(x, labels_of(y, mask), y_pred, sample_weight)
