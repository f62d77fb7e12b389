"""Base class of losses that compare what models predict, and their checks."""

import warnings
from typing import Any, ClassVar

import keras
import numpy as np
from numpy.typing import NDArray

from keras_dskd.features.output_kind import OutputKind, output_kinds
from keras_dskd.features.output_values import (
    is_within_0_and_1,
    looks_like_probabilities,
)
from keras_dskd.internal.tasks import Task
from keras_dskd.internal.types import Nested, Role
from keras_dskd.losses.base import LayerLoss
from keras_dskd.losses.output_structures import check_same_structure

#: The losses to use instead, for errors.
_LOSS_FOR = {
    "softmax": "SoftTargets",
    "sigmoid": "BinarySoftTargets",
    "multiclass": "SoftTargets",
    "binary": "BinarySoftTargets",
    "regression": "RegressionTargets",
}
_COMPARES = {
    "multiclass": "distributions over classes that exclude one another",
    "binary": "labels that do not exclude one another",
}


class OutputLoss(LayerLoss):
    """A loss that compares predictions, of one kind of task.

    A subclass declares its `task` and may have `teacher_from_logits`,
    `student_from_logits` (`True` for logits, `False` for probabilities) and `axis`, the
    axis of the classes.
    """

    task: ClassVar[Task]

    def validate_model_compatibility(
        self, teacher: keras.Model, student: keras.Model
    ) -> None:
        """Raise `ValueError` if a model's output does not fit, as its graph shows."""
        for role, model in (("teacher", teacher), ("student", student)):
            for kind in output_kinds(model, getattr(self, f"{role}_layer_name")):
                self._check_kind(role, f"the {role} {model.name!r}", kind)

    def validate_outputs(
        self, teacher_outputs: Nested, student_outputs: Nested
    ) -> None:
        """Raise `ValueError` unless both outputs have the same structure."""
        check_same_structure(self, teacher_outputs, student_outputs)

    def validate_predictions(self, role: Role, predictions: Nested) -> None:
        """Raise `ValueError` if a model's predictions for a batch do not fit.

        It is for models whose graph does not show what they return.

        Args:
            role: `"teacher"` or `"student"`.
            predictions: NumPy array, or a structure of arrays, with a model's output.
        """
        for values in keras.tree.flatten(predictions):
            self._check_values(role, np.asarray(values))

    def validate_task(self, task: Task, trained_by: str, student: keras.Model) -> None:
        """Raise `ValueError` if the student is trained for another task.

        Args:
            task: The task of the loss that the student's output is compiled with.
            trained_by: The name of that loss.
            student: The student.
        """
        # The squared difference of logits is a known loss for any task.
        if self.task in (task, "regression"):
            return
        # Any loss may train probabilities, such as the squared error.
        kinds = output_kinds(student, self.student_layer_name)
        if set(kinds) <= {"softmax", "sigmoid"}:
            return
        raise ValueError(
            f"{type(self).__name__} is for {self.task} outputs, and {trained_by}, "
            f"which trains the student's output, is for {task} outputs. Use "
            f"keras_dskd.losses.{_LOSS_FOR[task]}."
        )

    @property
    def _probabilities(self) -> OutputKind:
        return {"multiclass": "softmax", "binary": "sigmoid"}.get(self.task)  # type: ignore[return-value]

    def _check_kind(self, role: str, what: str, kind: OutputKind) -> None:
        own, name = self._probabilities, type(self).__name__
        from_logits = getattr(self, f"{role}_from_logits", None)
        if own is None or kind is None:
            return
        if kind == "linear":
            if from_logits is False:
                raise ValueError(
                    f"{name}({role}_from_logits=False) takes probabilities, and {what} "
                    f"ends in a layer without activation, which returns logits. Use "
                    f"{name}({role}_from_logits=True)."
                )
        elif kind != own:
            raise ValueError(
                f"{name} compares {_COMPARES[self.task]}, and {what} ends in a {kind}. "
                f"Use {_LOSS_FOR[kind]}({role}_from_logits=False)."
            )
        elif from_logits:
            raise ValueError(
                f"{name} compares logits, and {what} ends in a {kind}. Use "
                f"{name}({role}_from_logits=False)."
            )

    def _check_values(self, role: str, values: NDArray[Any]) -> None:
        own, name = self._probabilities, type(self).__name__
        from_logits = getattr(self, f"{role}_from_logits", None)
        # NumPy does not count bfloat16 among the floats.
        if own is None or not keras.backend.is_float_dtype(values.dtype.name):
            return
        if not values.size:
            return
        received = f"The {role}'s predictions for a batch"
        if looks_like_probabilities(values, getattr(self, "axis", -1)):
            self._check_kind(
                role, f"the {role}, whose outputs sum to 1 over the classes,", "softmax"
            )
        elif from_logits is False and (
            own == "softmax" or not is_within_0_and_1(values)
        ):
            raise ValueError(
                f"{name}({role}_from_logits=False) takes probabilities. {received} are "
                f"not the result of a {own}: they are between "
                f"{float(values.min()):.4g} and {float(values.max()):.4g}. Use "
                f"{name}({role}_from_logits=True) for logits."
            )
        elif from_logits and own == "sigmoid" and is_within_0_and_1(values):
            warnings.warn(
                f"{name} compares logits. {received} are all between 0 and 1, as if "
                f"they were probabilities. If so, use {name}({role}_from_logits="
                "False).",
                stacklevel=2,
            )
