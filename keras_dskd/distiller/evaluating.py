"""Which losses a step of `evaluate` computes: the student's, or the total as well."""

import contextvars
from typing import Any

import keras

from keras_dskd.data import pairs
from keras_dskd.distiller.student_rules import overrides
from keras_dskd.internal.types import Nested

#: Whether the current step of `evaluate` also runs the teacher; `None` in other steps.
_runs_teacher: contextvars.ContextVar[bool | None] = contextvars.ContextVar(
    "runs_teacher", default=None
)


def runs_teacher() -> bool:
    """Whether the current step of `evaluate` computes the distillation losses."""
    return bool(_runs_teacher.get())


def is_evaluating() -> bool:
    """Whether the current step is one of `evaluate`."""
    return _runs_teacher.get() is not None


class EvaluatesTeacher(keras.Model):
    """A model whose `evaluate` may compute the distillation losses."""

    student: keras.Model
    student_loss_weight: Any
    _evaluates_teacher = False

    @property
    def evaluates_teacher(self) -> bool:
        """Whether `evaluate` also runs the teacher, where it gets pairs.

        `False` by default: `evaluate` then runs the student alone, unless there is no
        loss for labels. Assign it at any time.
        """
        return self._evaluates_teacher

    @evaluates_teacher.setter
    def evaluates_teacher(self, value: bool) -> None:
        if not isinstance(value, bool):
            raise ValueError(
                f"`evaluates_teacher` must be True or False. Received: {value!r}"
            )
        self._evaluates_teacher = value
        if getattr(self, "test_function", None) is not None:
            self.make_test_function(force=True)

    def _evaluates_distillation(self, x: Nested, y: Nested) -> bool:
        """Whether `evaluate` computes the distillation losses of a batch."""
        is_pair = pairs.is_pair(x) and (
            x.get("teacher") is not None or x.get("teacher_features") is not None
        )
        if not is_pair or self.student_loss_weight == 1:
            return False
        return self.evaluates_teacher or not self._has_label_loss(y)

    def _has_label_loss(self, y: Nested) -> bool:
        if self.loss is None:
            has_own = overrides(self.student, "compute_loss")
            return has_own and self.student_loss_weight != 0
        return y is not None

    def test_step(self, *args: Any) -> Any:
        """One step of `evaluate`, which needs labels if there is a loss for them."""
        *_, data = args  # The JAX trainer passes its state first.
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        distills = self._evaluates_distillation(x, y)
        is_missing = self.loss is not None and y is None
        if is_missing and (self.student_loss_weight != 0 or not distills):
            raise ValueError(
                "Labels are missing: y=None. Pass `y`: `evaluate` needs labels."
            )
        token = _runs_teacher.set(distills)
        try:
            return super().test_step(*args)
        finally:
            _runs_teacher.reset(token)
