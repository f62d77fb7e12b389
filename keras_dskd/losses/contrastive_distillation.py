"""Loss: of all teacher features, a student finds its own sample's."""

from typing import Any

import keras

from keras_dskd import ops
from keras_dskd.internal.types import Config, Tensor
from keras_dskd.losses.base import OfLayers
from keras_dskd.losses.paired_rows import paired_rows, whole_batch
from keras_dskd.ops.checks import check_temperature


@keras.saving.register_keras_serializable(package="keras_dskd")
class ContrastiveDistillation(OfLayers):
    """Contrastive distillation (CRD-style) of pooled features, within the batch.

    Formula: with `u` the rows scaled to unit length, and `N_i` the samples of other
    classes than i's,

    ```
    mean_i -log( exp(u_s,i · u_t,i / T) / Σ_{j in {i} ∪ N_i} exp(u_s,i · u_t,j / T) )
    ```

    `keras_dskd.Distiller` hands the labels over; without labels, as in Keras's
    distiller, `N_i` is all others. The teacher is detached. Other widths than the
    teacher's take a projector.

    Args:
        teacher_layer_name: Name of the teacher's layer. `None` for the final
            output.
        student_layer_name: Name of the student's layer. `None` for the final
            output.
        temperature: `T`, positive. Lower looks at the closest others only.

    Raises:
        ValueError: If `temperature` is not positive.

    Source:
        Tian et al. 2020, CRD (arXiv 1910.10699), as InfoNCE (arXiv 1807.03748) within
        a batch. See `keras_dskd.ops.contrastive_distillation`.
    """

    name = "contrastive_distillation"
    #: Of the teacher's feature its pooled rows are enough.
    pools_teacher = True

    def __init__(
        self,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        temperature: float = 0.2,
    ) -> None:
        check_temperature(temperature)
        super().__init__(teacher_layer_name, student_layer_name)
        self.temperature = temperature

    def compute_loss(
        self,
        teacher_outputs: Tensor,
        student_outputs: Tensor,
        labels: Tensor | None = None,
        sample_weight: Tensor | None = None,
        teacher_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """The loss.

        Args:
            teacher_outputs: Tensor `(n, c)` or `(n, ..., c)`, pooled over positions.
            student_outputs: The same number of channels.
            labels: Class numbers `(n,)`, or one-hot, or `None`.
            sample_weight: Tensor `(n,)`, weights of the samples that look.
            teacher_mask: Bool tensor `(n,)`, false for samples without a teacher,
                which neither look nor are found.
            **kwargs: Ignored.

        Returns:
            Scalar, float32, at least 0.

        Raises:
            ValueError: If there are fewer than two samples or the widths differ.
        """
        teacher, student, mask = paired_rows(
            teacher_outputs, student_outputs, teacher_mask=teacher_mask
        )
        teacher, student, labels, sample_weight, mask = whole_batch(
            teacher, student, labels, sample_weight, mask
        )
        return ops.contrastive_distillation(
            teacher, student, self.temperature, labels, sample_weight, mask
        )

    def get_config(self) -> Config:
        return {**super().get_config(), "temperature": self.temperature}
