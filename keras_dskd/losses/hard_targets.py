"""Loss: the student predicts the teacher's most likely class."""

from typing import Any

import keras

from keras_dskd import ops
from keras_dskd.internal.types import Config, Nested, Tensor
from keras_dskd.losses.logits import as_logits
from keras_dskd.losses.output_loss import OutputLoss
from keras_dskd.losses.output_structures import sum_over_outputs
from keras_dskd.ops.paired_logits import check_class_axis
from keras_dskd.ops.sharing import detached


@keras.saving.register_keras_serializable(package="keras_dskd")
class HardTargets(OutputLoss):
    """Cross-entropy of the student with the teacher's most likely class.

    Formula:

    ```
    -log softmax(student)_k,  k = argmax(teacher)
    ```

    averaged over samples and positions. The teacher may return logits or probabilities.
    If the models have several outputs, their losses are summed. The teacher is
    detached.

    Args:
        teacher_layer_name: Teacher layer to read. `None` for the model's output.
        student_layer_name: Student layer with logits. `None` for the model's output.
        student_from_logits: `False` if the student's output is probabilities (after a
            softmax).
        axis: Axis of the classes, an integer other than 0.

    Raises:
        ValueError: If an argument is out of range; in `Distiller`, if the student ends
            in a softmax and should return logits, or in a sigmoid.

    Source:
        Touvron et al. 2021, DeiT (arXiv 2012.12877), hard-label distillation. See
        `keras_dskd.ops.hard_targets`.
    """

    name = "hard_targets"
    task = "multiclass"

    def __init__(
        self,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        student_from_logits: bool = True,
        axis: int = -1,
    ) -> None:
        check_class_axis(axis)
        super().__init__(teacher_layer_name, student_layer_name)
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
            return ops.hard_targets(
                detached(teacher),
                as_logits(student, self.student_from_logits),
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
            **super().get_config(),
            "student_from_logits": self.student_from_logits,
            "axis": self.axis,
        }
