"""The sum that a step minimizes, and whether the student's own loss is part of it."""

import keras
from keras import ops

from keras_dskd.distiller.loss_term import LossTerm
from keras_dskd.distiller.loss_weights import WeightsLosses
from keras_dskd.distiller.student_rules import overrides
from keras_dskd.internal.types import Nested, Tensor


class SumsLosses(WeightsLosses):
    """A model that minimizes a weighted sum of the student's loss and others."""

    student: keras.Model
    loss_terms: tuple[LossTerm, ...]

    def _has_student_loss(self, y: Nested) -> bool:
        """Whether the step computes the student's own loss.

        Raises:
            ValueError: If it is needed, and labels are missing.
        """
        if self.loss is None:
            return not self._student_weighs(0)
        if y is None and not self._student_weighs(0):
            raise ValueError(
                "Labels are missing: y=None. Pass `y`, or use student_loss_weight=0 to "
                "train on the teacher alone."
            )
        return y is not None

    def _check_loss_of_student(self) -> None:
        has_own = overrides(self.student, "compute_loss")
        if self.loss is None and not self.losses and not has_own:
            raise ValueError(
                "There is no loss for the student. Pass `loss` to `compile`, or use "
                "student_loss_weight=0 to train on the teacher alone."
            )

    def _total(
        self, values: dict[str, Tensor], penalties: list[Tensor], distills: bool
    ) -> Tensor:
        """The total of a step. Adds it and `distillation_loss` to `values`."""
        total = values.get("student_loss")
        if distills:
            distillation_loss = self._term_weights.weighted_sum(
                [values[term.name] for term in self.loss_terms]
            )
            values["distillation_loss"] = distillation_loss
            share = self._term_weights.student_at_step()
            total = (1.0 - share) * distillation_loss
            parts = list(penalties)
            if "student_loss" in values and not self._student_weighs(0):
                student_loss = values["student_loss"]
                weight = ops.cast(share, student_loss.dtype)
                parts.append(weight * student_loss)
            for part in parts:
                # TensorFlow does not add floats of different types.
                dtype = keras.backend.result_type(total.dtype, part.dtype)
                total = ops.cast(total, dtype) + ops.cast(part, dtype)
        if total is None:
            return ops.zeros(())
        values["total_loss"] = total
        return total
