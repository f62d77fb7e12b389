"""Loss: soft targets with separate weights for the true and the other classes."""

from typing import Any

import keras

from keras_dskd import ops
from keras_dskd.internal import replicas
from keras_dskd.internal.schedules import serialize_weight
from keras_dskd.internal.types import Config, Nested, Tensor, Weight
from keras_dskd.losses.base import LayerLoss
from keras_dskd.losses.logits import as_logits
from keras_dskd.losses.output_loss import OutputLoss
from keras_dskd.ops.checks import check_label_name, check_number
from keras_dskd.ops.labels import check_ignore_class
from keras_dskd.ops.sharing import detached
from keras_dskd.ops.soft_targets import check_divergence_temperature
from keras_dskd.ops.step_masks import masked_outputs


@keras.saving.register_keras_serializable(package="keras_dskd")
class DecoupledDistillation(OutputLoss):
    """Decoupled knowledge distillation (DKD).

    Formula: with `p` and `q` the softened distributions of teacher and student, `y`
    the true class, and `p'` and `q'` the distributions over the other classes,

    ```
    T² (a KL([p_y, 1 - p_y] || [q_y, 1 - q_y]) + b KL(p' || q'))
    ```

    The loss needs labels: `keras_dskd.Distiller` passes them, Keras's Distiller does
    not. The teacher is detached.

    Args:
        temperature: `T`, between 1e-6 and 1000; in `keras_dskd.Distiller` also a
            schedule or another callable of the training step.
        target_weight: `a`, at least 0.
        non_target_weight: `b`, at least 0. The source uses 8 on CIFAR-100 and 1 to 8
            elsewhere, and ramps up the loss's weight over the first epochs.
        teacher_layer_name: Teacher layer with logits. `None` for the model's output.
        student_layer_name: Student layer with logits. `None` for the model's output.
        teacher_from_logits: `False` if the teacher's output is probabilities (after a
            softmax).
        student_from_logits: The same for the student.
        ignore_class: Label of samples or positions to leave out, such as 255 for
            pixels without a class. The loss is the mean over the others.
        label_name: Name of the output whose labels are meant, if the model has several
            and the layer's name does not tell.

    Raises:
        ValueError: If an argument is out of range; in `Distiller`, if a model that
            should return logits ends in a softmax or a sigmoid.

    Source:
        Zhao et al. 2022 (arXiv 2203.08679). See
        `keras_dskd.ops.decoupled_distillation`.
    """

    name = "decoupled_distillation"
    task = "multiclass"

    def __init__(
        self,
        temperature: Weight = 4.0,
        target_weight: float = 1.0,
        non_target_weight: float = 8.0,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        teacher_from_logits: bool = True,
        student_from_logits: bool = True,
        ignore_class: int | None = None,
        label_name: str | None = None,
    ) -> None:
        if not callable(temperature):
            check_divergence_temperature(temperature)
        check_label_name(label_name)
        check_ignore_class(ignore_class)
        check_number("target_weight", target_weight)
        check_number("non_target_weight", non_target_weight)
        super().__init__(teacher_layer_name, student_layer_name)
        self.temperature: Any = temperature
        self.target_weight = target_weight
        self.non_target_weight = non_target_weight
        self.teacher_from_logits = teacher_from_logits
        self.student_from_logits = student_from_logits
        self.ignore_class = ignore_class
        self.label_name = label_name

    def validate_outputs(
        self, teacher_outputs: Nested, student_outputs: Nested
    ) -> None:
        """Raise `ValueError` unless each model gives one output."""
        LayerLoss.validate_outputs(self, teacher_outputs, student_outputs)

    def compute_loss(
        self,
        teacher_outputs: Tensor,
        student_outputs: Tensor,
        labels: Tensor | None = None,
        sample_weight: Tensor | None = None,
        teacher_step_mask: Tensor | None = None,
        student_step_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Compute the loss.

        Args:
            teacher_outputs: Tensor `(n, ..., classes)`.
            student_outputs: Tensor of the same shape.
            labels: Class indices `(n, ...)`, or one-hot labels `(n, ..., classes)`.
            sample_weight: Tensor `(n,)`, or weights along the axes of class indices.
            teacher_step_mask: Bool tensor `(n, steps)`, true for the teacher's real
                steps; `None` if all are real. The loss is the mean over steps that are
                real on both sides.
            student_step_mask: The same for the student.
            **kwargs: Ignored.

        Returns:
            Scalar, float32.

        Raises:
            ValueError: If labels are missing, or shapes differ.
        """
        teacher, student, sample_weight = masked_outputs(
            detached(teacher_outputs),
            student_outputs,
            sample_weight,
            teacher_step_mask,
            student_step_mask,
            replicas.current(),
        )
        return ops.decoupled_distillation(
            as_logits(teacher, self.teacher_from_logits),
            as_logits(student, self.student_from_logits),
            labels,
            self.temperature,
            self.target_weight,
            self.non_target_weight,
            sample_weight,
            self.ignore_class,
            replicas.current(),
        )

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "temperature": serialize_weight(self.temperature),
            "target_weight": self.target_weight,
            "non_target_weight": self.non_target_weight,
            "teacher_from_logits": self.teacher_from_logits,
            "student_from_logits": self.student_from_logits,
            "ignore_class": self.ignore_class,
            "label_name": self.label_name,
        }
