"""What the losses have in common: a layer of each model."""

from typing import TYPE_CHECKING

import keras

from keras_dskd.internal.types import Config, Nested
from keras_dskd.ops.checks import check_layer_name

if TYPE_CHECKING:
    from typing_extensions import Self


class OfLayers(keras.distillation.DistillationLoss):
    """A loss that reads one layer of each model.

    Args:
        teacher_layer_name: Name or path of the teacher's layer. `None` for the final
            output.
        student_layer_name: The same for the student.

    Raises:
        ValueError: If one is neither a string nor `None`.
    """

    def __init__(
        self,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
    ) -> None:
        check_layer_name(teacher_layer_name)
        check_layer_name(student_layer_name)
        # Keras's own Distiller reads the student's layer only where the teacher's
        # is not None, and takes "" for the teacher's final output.
        student_alone = teacher_layer_name is None and student_layer_name is not None
        self.teacher_layer_name = "" if student_alone else teacher_layer_name
        self.student_layer_name = student_layer_name

    def validate_outputs(
        self, teacher_outputs: Nested, student_outputs: Nested
    ) -> None:
        """Accepts any pair: `compute_loss` checks what it uses."""

    def get_config(self) -> Config:
        return {
            "teacher_layer_name": self.teacher_layer_name or None,
            "student_layer_name": self.student_layer_name,
        }

    @classmethod
    def from_config(cls, config: Config) -> "Self":
        return cls(**config)
