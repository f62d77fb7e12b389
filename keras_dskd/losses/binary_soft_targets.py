"""Loss: the softened probability of each label matches the teacher's."""

from typing import Any

import keras

from keras_dskd import ops
from keras_dskd.internal.schedules import serialize_weight
from keras_dskd.internal.types import Config, Nested, Tensor, Weight
from keras_dskd.losses.logits import as_binary_logits
from keras_dskd.losses.output_loss import OutputLoss
from keras_dskd.losses.output_structures import sum_over_outputs
from keras_dskd.ops.sharing import detached
from keras_dskd.ops.soft_targets import check_divergence_temperature


@keras.saving.register_keras_serializable(package="keras_dskd")
class BinarySoftTargets(OutputLoss):
    """KL divergence of the student's softened label probabilities from the teacher's.

    For a single sigmoid, and for several labels that do not exclude one another. For
    classes that do, use `SoftTargets`.

    Formula: with `σ` the sigmoid, and `Bern(p)` the distribution of one label with
    probability `p`,

    ```
    T² mean over labels of KL(Bern(σ(teacher / T)) || Bern(σ(student / T)))
    ```

    averaged over the samples. If the models have several outputs, their losses are
    summed. The teacher is detached.

    Args:
        temperature: `T`, between 1e-6 and 1000; in `keras_dskd.Distiller` also a
            schedule or another callable of the training step. A higher value gives more
            influence to labels of which the teacher is certain.
        teacher_layer_name: Teacher layer with logits. `None` for the model's output.
        student_layer_name: Student layer with logits. `None` for the model's output.
        teacher_from_logits: `False` if the teacher's output is probabilities (after a
            sigmoid). They are clipped to [1.2e-7, 1 - 1.2e-7], which is ±15.9 as
            logits, and converted to logits.
        student_from_logits: The same for the student. Probabilities that are clipped
            have no gradient.

    Raises:
        ValueError: If an argument is out of range; in `Distiller`, if a model ends in a
            softmax, or in a sigmoid where logits are expected.

    Source:
        Hinton, Vinyals and Dean 2015 (arXiv 1503.02531), for each label. See
        `keras_dskd.ops.binary_soft_targets`.
    """

    name = "binary_soft_targets"
    task = "binary"

    def __init__(
        self,
        temperature: Weight = 4.0,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        teacher_from_logits: bool = True,
        student_from_logits: bool = True,
    ) -> None:
        if not callable(temperature):
            check_divergence_temperature(temperature)
        super().__init__(teacher_layer_name, student_layer_name)
        self.temperature: Any = temperature
        self.teacher_from_logits = teacher_from_logits
        self.student_from_logits = student_from_logits

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
            teacher_outputs: Tensor `(n, ..., labels)` or `(n,)`, or a list, tuple or
                dict of such tensors.
            student_outputs: The same structure and shapes. `(n,)` and `(n, 1)` match.
            sample_weight: Tensor `(n,)`, or weights along the first axes.
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
            return ops.binary_soft_targets(
                as_binary_logits(detached(teacher), self.teacher_from_logits),
                as_binary_logits(student, self.student_from_logits),
                self.temperature,
                weight,
            )

        return sum_over_outputs(
            term,
            (teacher_outputs, student_outputs),
            sample_weight,
            (teacher_step_mask, student_step_mask),
        )

    def get_config(self) -> Config:
        return {
            "temperature": serialize_weight(self.temperature),
            **super().get_config(),
            "teacher_from_logits": self.teacher_from_logits,
            "student_from_logits": self.student_from_logits,
        }
