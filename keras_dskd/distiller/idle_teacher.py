"""Keep a teacher that does not run out of the state that JAX's trainer passes on."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import keras

#: Methods in which a subclass may run the teacher during `evaluate` or `predict`.
STEPS = ("call", "compute_loss", "compute_metrics", "test_step", "predict_step")


class IdlesTeacher(keras.Model):
    """A model whose `evaluate` and `predict` leave an idle teacher where it is.

    The JAX trainer moves all variables of a model into a state, and passes it through
    each step. `non_trainable_variables` says which variables these are.
    """

    evaluates_teacher: Any
    student_loss_weight: Any
    _is_teacher_idle = False
    # Whether the state of the compiled steps leaves the teacher's variables out.
    _is_idle_in_test_function = False
    _is_idle_in_predict_function = False

    @functools.wraps(keras.Model.evaluate)
    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        # Without a loss for labels, each batch decides whether the teacher runs.
        has_loss = getattr(self, "loss", None) is not None
        is_alone = has_loss and self.student_loss_weight != 0
        with self._with_idle_teacher(is_alone and not self.evaluates_teacher):
            return super().evaluate(*args, **kwargs)

    @functools.wraps(keras.Model.predict)
    def predict(self, *args: Any, **kwargs: Any) -> Any:
        with self._with_idle_teacher(True):
            return super().predict(*args, **kwargs)

    def make_test_function(self, force: bool = False) -> Any:
        """Compiles the step; see `keras.Model.make_test_function`."""
        is_other_state = self._is_idle_in_test_function != self._is_teacher_idle
        self._is_idle_in_test_function = self._is_teacher_idle
        return super().make_test_function(force or is_other_state)

    def make_predict_function(self, force: bool = False) -> Any:
        """Compiles the step; see `keras.Model.make_predict_function`."""
        is_other_state = self._is_idle_in_predict_function != self._is_teacher_idle
        self._is_idle_in_predict_function = self._is_teacher_idle
        return super().make_predict_function(force or is_other_state)

    @contextlib.contextmanager
    def _with_idle_teacher(self, is_alone: bool) -> Iterator[None]:
        """A context in which the trainer does not hold the teacher's variables.

        Args:
            is_alone: Whether this package runs the student alone. A subclass may run
                the teacher all the same, and then the trainer must hold the variables.
        """
        can_idle = keras.backend.backend() == "jax" and not _has_own_steps(type(self))
        before = self._is_teacher_idle
        self._is_teacher_idle = is_alone and can_idle
        try:
            yield
        finally:
            self._is_teacher_idle = before


def _has_own_steps(model_class: type[keras.Model]) -> bool:
    """Whether a subclass outside this package overrides a method of a step."""
    return any(
        name in vars(each)
        for each in model_class.__mro__
        if each.__module__.partition(".")[0] not in ("keras", "keras_dskd")
        for name in STEPS
    )
