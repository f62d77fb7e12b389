"""Loss: the softened class distribution matches the teacher's."""

from typing import Any

import keras

from keras_dskd import ops
from keras_dskd.internal.schedules import (
    check_temperature_word,
    serialize_temperature,
)
from keras_dskd.internal.types import Config, Nested, Temperature, Tensor
from keras_dskd.losses.logits import as_logits
from keras_dskd.losses.output_loss import OutputLoss
from keras_dskd.losses.output_structures import sum_over_outputs
from keras_dskd.ops.paired_logits import check_class_axis
from keras_dskd.ops.sharing import detached
from keras_dskd.ops.soft_targets import check_divergence_temperature


@keras.saving.register_keras_serializable(package="keras_dskd")
class SoftTargets(OutputLoss):
    """KL divergence of the student's softened class distribution from the teacher's.

    Formula:

    ```
    T² KL(softmax(teacher / T) || softmax(student / T))
    ```

    averaged over samples and positions. It is for classes that exclude one another; for
    a single sigmoid or independent labels, use `BinarySoftTargets`. If the models have
    several outputs, their losses are summed. The teacher is detached.

    Args:
        temperature: `T`, between 1e-6 and 1000; in `keras_dskd.Distiller` also a
            schedule or another callable of the training step. A higher value gives
            small probabilities more influence. `"auto"` measures it in each batch:
            between 2 and 4, the surer the teacher, the higher; see
            `keras_dskd.ops.auto_temperature`. Defaults to 4, which measured well on
            small images.
        teacher_layer_name: Teacher layer with logits. `None` for the model's output.
        student_layer_name: Student layer with logits. `None` for the model's output.
        teacher_from_logits: `False` if the teacher's output is probabilities (after a
            softmax). Their logarithm then replaces the logits; this is exact for
            probabilities above 1e-30.
        student_from_logits: The same for the student.
        axis: Axis of the classes, an integer other than 0. 1 for a segmentation
            `(n, classes, height, width)`. Weights of positions line up with the other
            axes.

    Raises:
        ValueError: If an argument is out of range; in `Distiller`, if a model that
            should return logits ends in a softmax or a sigmoid.

    Source:
        Hinton, Vinyals and Dean 2015 (arXiv 1503.02531). See
        `keras_dskd.ops.soft_targets`.
    """

    name = "soft_targets"
    task = "multiclass"

    def __init__(
        self,
        temperature: Temperature = 4.0,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        teacher_from_logits: bool = True,
        student_from_logits: bool = True,
        axis: int = -1,
    ) -> None:
        if isinstance(temperature, str):
            check_temperature_word(temperature)
        elif not callable(temperature):
            check_divergence_temperature(temperature)
        check_class_axis(axis)
        self.temperature: Any = temperature
        super().__init__(teacher_layer_name, student_layer_name)
        self.teacher_from_logits = teacher_from_logits
        self.student_from_logits = student_from_logits
        self.axis = axis

    def compute_loss(
        self,
        teacher_outputs: Nested,
        student_outputs: Nested,
        sample_weight: Tensor | None = None,
        teacher_step_mask: Nested | None = None,
        student_step_mask: Nested | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Compute the loss.

        Args:
            teacher_outputs: Tensor `(n, ..., classes)`, or a list, tuple or dict of
                such tensors.
            student_outputs: The same structure and shapes.
            sample_weight: Tensor `(n,)`, or weights along the first axes without the
                classes.
            teacher_step_mask: Bool tensor `(n, steps)`, true for the teacher's real
                steps, or the same structure of them; `None` if all are real. The loss
                is the mean over steps that are real on both sides.
            student_step_mask: The same for the student.
            **kwargs: Ignored.

        Returns:
            Scalar, float32.

        Raises:
            ValueError: If structures or shapes differ.
        """

        def term(teacher: Tensor, student: Tensor, weight: Tensor | None) -> Tensor:
            return ops.soft_targets(
                as_logits(detached(teacher), self.teacher_from_logits),
                as_logits(student, self.student_from_logits),
                self.temperature,
                weight,
                self.axis,
            )

        return sum_over_outputs(
            term,
            (teacher_outputs, student_outputs),
            sample_weight,
            (teacher_step_mask, student_step_mask),
            self.axis,
        )

    def get_config(self) -> Config:
        return {
            "temperature": serialize_temperature(self.temperature),
            **super().get_config(),
            "teacher_from_logits": self.teacher_from_logits,
            "student_from_logits": self.student_from_logits,
            "axis": self.axis,
        }
