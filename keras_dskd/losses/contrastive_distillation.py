"""Loss: a student feature identifies the teacher feature of the same sample."""

from typing import Any

import keras

from keras_dskd import ops
from keras_dskd.internal import replicas
from keras_dskd.internal.types import Config, Tensor
from keras_dskd.losses.base import LayerLoss
from keras_dskd.losses.paired_rows import gather_global_batch, paired_rows
from keras_dskd.ops.checks import check_label_name, check_temperature
from keras_dskd.ops.step_masks import step_weight


@keras.saving.register_keras_serializable(package="keras_dskd")
class ContrastiveDistillation(LayerLoss):
    """Contrastive distillation (CRD-style) of pooled features, within the batch.

    Formula: with `u` the rows scaled to unit length, and `N_i` the samples whose class
    differs from sample i's,

    ```
    mean_i -log( exp(u_s,i · u_t,i / T) / Σ_{j in {i} ∪ N_i} exp(u_s,i · u_t,j / T) )
    ```

    `keras_dskd.Distiller` passes the labels. Without labels, as in Keras's Distiller,
    `N_i` is all other samples. If the numbers of channels differ, use a projector. The
    teacher is detached.

    Args:
        teacher_layer_name: Teacher layer to read. `None` for the model's output.
        student_layer_name: Student layer to read. `None` for the model's output.
        temperature: `T`, between 1e-6 and 1e6. A lower value focuses on the most
            similar samples.
        label_name: Name of the output whose labels are meant, if the model has several.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Tian et al. 2020, CRD (arXiv 1910.10699), as InfoNCE (arXiv 1807.03748) within
        a batch. See `keras_dskd.ops.contrastive_distillation`.
    """

    name = "contrastive_distillation"
    pools_teacher = True

    def __init__(
        self,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        temperature: float = 0.2,
        label_name: str | None = None,
    ) -> None:
        check_temperature(temperature)
        check_label_name(label_name)
        super().__init__(teacher_layer_name, student_layer_name)
        self.temperature = temperature
        self.label_name = label_name

    def compute_loss(
        self,
        teacher_outputs: Tensor,
        student_outputs: Tensor,
        labels: Tensor | None = None,
        sample_weight: Tensor | None = None,
        teacher_mask: Tensor | None = None,
        teacher_step_mask: Tensor | None = None,
        student_step_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Compute the loss.

        Args:
            teacher_outputs: Tensor `(n, c)`, or `(n, ..., c)`, which is pooled over
                positions.
            student_outputs: Tensor `(n, c)` or `(n, ..., c)`.
            labels: Class indices `(n,)`, one-hot labels `(n, classes)`, or `None`.
            sample_weight: Tensor `(n,)`, weights of the student's samples.
            teacher_mask: Bool tensor `(n,)`, false for samples without a teacher.
                They are left out, as anchors and as negatives.
            teacher_step_mask: Bool tensor `(n, steps)`, true for the teacher's real
                steps; `None` if all are real.
            student_step_mask: The same for the student.
            **kwargs: Ignored.

        Returns:
            Scalar, float32, at least 0.

        Raises:
            ValueError: If there are fewer than two samples or the numbers of channels
                differ.
        """
        teacher, student, mask = paired_rows(
            teacher_outputs,
            student_outputs,
            "pooled",
            teacher_mask,
            teacher_step_mask,
            student_step_mask,
        )
        if teacher_step_mask is not None or student_step_mask is not None:
            sample_weight = step_weight(sample_weight, mask, replicas.current())
        teacher, student, labels, sample_weight, mask = gather_global_batch(
            teacher, student, labels, sample_weight, mask
        )
        return ops.contrastive_distillation(
            teacher, student, self.temperature, labels, sample_weight, mask
        )

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "temperature": self.temperature,
            "label_name": self.label_name,
        }
