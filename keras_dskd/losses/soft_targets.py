"""Loss: follow the teacher's softened class distribution."""

from typing import Any

import keras

from keras_dskd import ops
from keras_dskd.internal.types import Config, Nested, Tensor
from keras_dskd.losses.base import OfLayers
from keras_dskd.losses.logits import as_logits, check_gives_logits
from keras_dskd.ops.soft_targets import check_divergence_temperature


@keras.saving.register_keras_serializable(package="keras_dskd")
class SoftTargets(OfLayers):
    """Divergence of the student's softened class distribution from the teacher's.

    Formula:

    ```
    T² KL(softmax(teacher / T) || softmax(student / T))
    ```

    Where the models have several outputs, the terms of all outputs are summed. The
    teacher is detached.

    Args:
        temperature: `T`, positive, at most 1000. Higher shows more of the small
            probabilities. Defaults to 4, which measured well on small images.
        teacher_layer_name: Name of the teacher's layer that holds the logits.
            `None` for the final output.
        student_layer_name: The same for the student.
        teacher_from_logits: `False` where the teacher's output has gone through a
            softmax. Its logarithm then takes the place of logits, which is exact
            down to probabilities of 1e-30.
        student_from_logits: The same for the student.

    Raises:
        ValueError: If `temperature` is out of its range; when the models are known, if
            one ends in a softmax and is said to give logits.

    Source:
        Hinton, Vinyals and Dean 2015 (arXiv 1503.02531). See
        `keras_dskd.ops.soft_targets`.
    """

    name = "soft_targets"

    def __init__(
        self,
        temperature: float = 4.0,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        teacher_from_logits: bool = True,
        student_from_logits: bool = True,
    ) -> None:
        check_divergence_temperature(temperature)
        self.temperature = temperature
        super().__init__(teacher_layer_name, student_layer_name)
        self.teacher_from_logits = teacher_from_logits
        self.student_from_logits = student_from_logits

    def validate_model_compatibility(
        self, teacher: keras.Model, student: keras.Model
    ) -> None:
        """Raises `ValueError` where a model's last layer shows it gives no logits."""
        check_gives_logits(self, teacher, student)

    def validate_outputs(
        self, teacher_outputs: Nested, student_outputs: Nested
    ) -> None:
        """Raises `ValueError` unless both models give the same structure of outputs."""
        try:
            keras.tree.assert_same_structure(teacher_outputs, student_outputs)
        except (TypeError, ValueError) as error:
            counts = [
                len(keras.tree.flatten(outputs))
                for outputs in (teacher_outputs, student_outputs)
            ]
            raise ValueError(
                "SoftTargets compares outputs of one structure. Received a mismatch: "
                f"{counts[0]} from the teacher in a {type(teacher_outputs).__name__}, "
                f"{counts[1]} from the student in a {type(student_outputs).__name__}. "
                "Name the layers that hold the logits: teacher_layer_name=..., "
                "student_layer_name=..."
            ) from error

    def compute_loss(
        self,
        teacher_outputs: Nested,
        student_outputs: Nested,
        sample_weight: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """The loss.

        Args:
            teacher_outputs: Tensor `(n, ..., classes)`, or a structure of them.
            student_outputs: The same structure and shapes.
            sample_weight: Tensor `(n,)`, weights of the samples.
            **kwargs: Ignored.

        Returns:
            Scalar, float32.

        Raises:
            ValueError: If structures or shapes differ.
        """
        terms = keras.tree.map_structure(
            lambda teacher, student: self._term(teacher, student, sample_weight),
            teacher_outputs,
            student_outputs,
        )
        return sum(keras.tree.flatten(terms))

    def _term(
        self, teacher: Tensor, student: Tensor, sample_weight: Tensor | None
    ) -> Tensor:
        teacher = keras.ops.stop_gradient(keras.ops.convert_to_tensor(teacher))
        return ops.soft_targets(
            as_logits(teacher, self.teacher_from_logits),
            as_logits(student, self.student_from_logits),
            self.temperature,
            sample_weight,
        )

    def get_config(self) -> Config:
        return {
            "temperature": self.temperature,
            **super().get_config(),
            "teacher_from_logits": self.teacher_from_logits,
            "student_from_logits": self.student_from_logits,
        }
