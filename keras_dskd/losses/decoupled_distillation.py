"""Loss: soft targets in two parts, each with a weight."""

from typing import Any

import keras

from keras_dskd import ops
from keras_dskd.internal.types import Config, Tensor
from keras_dskd.losses.base import OfLayers
from keras_dskd.losses.logits import as_logits, check_gives_logits
from keras_dskd.ops.checks import check_weight
from keras_dskd.ops.sharing import detached
from keras_dskd.ops.soft_targets import check_divergence_temperature


@keras.saving.register_keras_serializable(package="keras_dskd")
class DecoupledDistillation(OfLayers):
    """Decoupled knowledge distillation (DKD).

    Formula: with `p` and `q` the softened distributions of teacher and student, `y`
    the true class, and `p'`, `q'` those over the other classes alone,

    ```
    T² (a KL([p_y, 1 - p_y] || [q_y, 1 - q_y]) + b KL(p' || q'))
    ```

    Reads the labels, which `keras_dskd.Distiller` hands over; Keras's does not. The
    teacher is detached.

    Args:
        temperature: `T`, positive, at most 1000.
        target_weight: `a`, not negative.
        non_target_weight: `b`, not negative. The source takes 8 on CIFAR-100, between
            1 and 8 elsewhere, and raises the loss's weight over the first epochs.
        teacher_layer_name: Name of the teacher's layer that holds the logits.
            `None` for the final output.
        student_layer_name: The same for the student.
        teacher_from_logits: `False` where the teacher's output has gone through a
            softmax.
        student_from_logits: The same for the student.

    Raises:
        ValueError: If an argument is out of its range; when the models are known, if
            one ends in a softmax and is said to give logits.

    Source:
        Zhao et al. 2022 (arXiv 2203.08679). See
        `keras_dskd.ops.decoupled_distillation`.
    """

    name = "decoupled_distillation"

    def __init__(
        self,
        temperature: float = 4.0,
        target_weight: float = 1.0,
        non_target_weight: float = 8.0,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        teacher_from_logits: bool = True,
        student_from_logits: bool = True,
    ) -> None:
        check_divergence_temperature(temperature)
        check_weight("target_weight", target_weight)
        check_weight("non_target_weight", non_target_weight)
        super().__init__(teacher_layer_name, student_layer_name)
        self.temperature = temperature
        self.target_weight = target_weight
        self.non_target_weight = non_target_weight
        self.teacher_from_logits = teacher_from_logits
        self.student_from_logits = student_from_logits

    def validate_model_compatibility(
        self, teacher: keras.Model, student: keras.Model
    ) -> None:
        """Raises `ValueError` where a model's last layer shows it gives no logits."""
        check_gives_logits(self, teacher, student)

    def compute_loss(
        self,
        teacher_outputs: Tensor,
        student_outputs: Tensor,
        labels: Tensor | None = None,
        sample_weight: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """The loss.

        Args:
            teacher_outputs: Tensor `(n, ..., classes)`.
            student_outputs: The same shape.
            labels: Class numbers `(n, ...)`, or one-hot.
            sample_weight: Tensor `(n,)`, weights of the samples.
            **kwargs: Ignored.

        Returns:
            Scalar, float32.

        Raises:
            ValueError: If there are no labels, or shapes differ.
        """
        return ops.decoupled_distillation(
            as_logits(detached(teacher_outputs), self.teacher_from_logits),
            as_logits(student_outputs, self.student_from_logits),
            labels,  # type: ignore[arg-type]  # Without any it says what is missing.
            self.temperature,
            self.target_weight,
            self.non_target_weight,
            sample_weight,
        )

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "temperature": self.temperature,
            "target_weight": self.target_weight,
            "non_target_weight": self.non_target_weight,
            "teacher_from_logits": self.teacher_from_logits,
            "student_from_logits": self.student_from_logits,
        }
