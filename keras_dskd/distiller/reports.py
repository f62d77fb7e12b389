"""Which losses a step reports, beside the compiled metrics."""

from typing import Any

from keras_dskd.distiller.evaluating import is_evaluating
from keras_dskd.distiller.forward import Forward
from keras_dskd.distiller.loss_term import LossTerm
from keras_dskd.distiller.metrics import LossMeans, reporting
from keras_dskd.distiller.total import SumsLosses
from keras_dskd.internal.types import Nested


class ReportsLosses(SumsLosses):
    """A model whose logs hold the losses that were computed, and no others."""

    loss_terms: tuple[LossTerm, ...]
    _means: LossMeans

    def compute_metrics(
        self,
        x: Nested,
        y: Nested,
        y_pred: Nested | Forward,
        sample_weight: Nested = None,
    ) -> dict[str, Any]:
        """The metrics of a step; see `keras.Model.compute_metrics`."""
        names = {"student_loss", "total_loss"} if self._has_student_loss(y) else set()
        if isinstance(y_pred, Forward):
            names |= {"distillation_loss", "total_loss"}
            names |= {term.name for term in self.loss_terms}
            y_pred = y_pred.prediction
        elif is_evaluating():
            names.discard("student_loss")
        with reporting(names):
            return super().compute_metrics(x, y, y_pred, sample_weight)

    def get_metrics_result(self) -> dict[str, Any]:
        """The metrics' values. Losses that were not computed are left out, not 0."""
        return self._means.computed(super().get_metrics_result())
