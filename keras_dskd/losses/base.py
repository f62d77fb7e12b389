"""Base class of the losses: it names the layers that a loss reads."""

from typing import TYPE_CHECKING

import keras

from keras_dskd.features.outputs import check_one, symbolic_outputs
from keras_dskd.internal.schedules import deserialize_weight
from keras_dskd.internal.types import Config, Nested
from keras_dskd.ops.checks import check_layer_name

if TYPE_CHECKING:
    from typing_extensions import Self


class LayerLoss(keras.distillation.DistillationLoss):
    """A loss that compares one layer of the teacher with one layer of the student.

    A subclass implements `compute_loss(teacher_outputs, student_outputs, **kwargs)`,
    which returns a scalar, and extends `get_config`. It also gets each of these
    arguments that its `compute_loss` names (default `None`, for batches without it):

    - `labels`: the batch's labels, as passed to `fit`.
    - `sample_weight`: float tensor `(n,)`, for a loss that is a mean over samples:
      return `Σ_i w_i v_i / n`. Samples without a teacher have weight 0. The other
      weights are scaled up, so that the result is the mean over the other samples.
    - `teacher_mask`: bool tensor `(n,)`, false for samples without a teacher, for any
      other loss: leave these samples out.
    - `teacher_step_mask` and `student_step_mask`: bool tensors `(n, steps)`, true for
      real steps, if Keras's layers attached a mask to that side's feature: leave the
      other steps out. (For a feature `(n, c)`, the mask is `(n,)`. For several outputs,
      it has their structure.) A loss that names one of them gets `sample_weight` as
      `fit` got it, and step masks that are false for samples without a teacher. Without
      these arguments, padded steps count, and a warning says so.

    Class attributes tell the Distiller how to treat the loss:

    - `name`: name of the loss's metric. Defaults to the class's name in snake case.
    - `reads_teacher`: set `False` if the loss ignores the teacher. It then gets
      `teacher_outputs=None`, and the teacher does not run if no loss reads it.
    - `pools_teacher`: set `True` if the loss uses only the mean over positions of the
      teacher's feature. A teacher cache then stores that mean, which is smaller.

    A subclass does not inherit `reads_teacher` and `pools_teacher`, because it may read
    more than its parent: declare them again in its class body. If the value depends on
    an argument, declare the flag in the class body and set it in `__init__` as well.

    Args:
        teacher_layer_name: Name or path of the teacher's layer. `None` for the model's
            output.
        student_layer_name: Name or path of the student's layer. `None` for the model's
            output.

    Raises:
        ValueError: If a name is neither a string nor `None`.
    """

    def __init__(
        self,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
    ) -> None:
        check_layer_name(teacher_layer_name)
        check_layer_name(student_layer_name)
        # Keras's own Distiller reads the student's layer only if the teacher's name is
        # given, and takes "" for the teacher's output.
        student_alone = teacher_layer_name is None and student_layer_name is not None
        self.teacher_layer_name = "" if student_alone else teacher_layer_name
        self.student_layer_name = student_layer_name

    def validate_outputs(
        self, teacher_outputs: Nested, student_outputs: Nested
    ) -> None:
        """Raise `ValueError` if the loss reads several outputs of a layer or model.

        Override it in a loss that reads several outputs at once.
        """
        if teacher_outputs is not None and self._reads_teacher():
            check_one(teacher_outputs, self.teacher_layer_name, "the teacher")
        check_one(student_outputs, self.student_layer_name, "the student")

    def validate_model_compatibility(
        self, teacher: keras.Model, student: keras.Model
    ) -> None:
        """Raise `ValueError` if the graphs show several outputs where one is read."""
        if type(self).validate_outputs is not LayerLoss.validate_outputs:
            return
        if self._reads_teacher() and teacher.built:
            outputs = symbolic_outputs(teacher, self.teacher_layer_name)
            check_one(outputs, self.teacher_layer_name, f'the teacher "{teacher.name}"')
        if student.built:
            outputs = symbolic_outputs(student, self.student_layer_name)
            check_one(outputs, self.student_layer_name, f'the student "{student.name}"')

    def _reads_teacher(self) -> bool:
        return "reads_teacher" not in vars(type(self)) or bool(self.reads_teacher)

    def get_config(self) -> Config:
        return {
            "teacher_layer_name": self.teacher_layer_name or None,
            "student_layer_name": self.student_layer_name,
        }

    @classmethod
    def from_config(cls, config: Config) -> "Self":
        if isinstance(config.get("temperature"), dict):  # A schedule.
            temperature = deserialize_weight(config["temperature"])
            config = {**config, "temperature": temperature}
        return cls(**config)
