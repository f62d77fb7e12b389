"""Loss: each channel is active at the teacher's positions."""

from typing import Any

import keras

from keras_dskd import ops
from keras_dskd.internal import replicas
from keras_dskd.internal.schedules import serialize_weight
from keras_dskd.internal.types import Config, Tensor, Weight
from keras_dskd.losses.base import LayerLoss
from keras_dskd.ops.sharing import detached
from keras_dskd.ops.soft_targets import check_divergence_temperature


@keras.saving.register_keras_serializable(package="keras_dskd")
class ChannelWiseDistillation(LayerLoss):
    """Channel-wise distillation (CWD) of feature maps or score maps.

    Formula: with `p_k` the softmax over positions of channel k, divided by T,

    ```
    T² mean over samples and channels k of KL(p_k,teacher || p_k,student)
    ```

    Use it for dense prediction on spatially registered pairs: on the logits of a
    segmentation, or on feature maps. A constant added to a channel does not matter, so
    on logits it goes beside a loss of the classes. If the numbers of channels differ,
    use a projector. The teacher is detached.

    Args:
        temperature: `T`, between 1e-6 and 1000; in `keras_dskd.Distiller` also a
            schedule or another callable of the training step. A higher value counts
            more positions.
        teacher_layer_name: Teacher layer to read, with a feature map. `None` for the
            model's output.
        student_layer_name: Student layer to read, with a feature map. `None` for the
            model's output.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Shu et al. 2021 (arXiv 2011.13256). See
        `keras_dskd.ops.channel_wise_distillation`.
    """

    name = "channel_wise_distillation"

    def __init__(
        self,
        temperature: Weight = 4.0,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
    ) -> None:
        if not callable(temperature):
            check_divergence_temperature(temperature)
        super().__init__(teacher_layer_name, student_layer_name)
        self.temperature: Any = temperature

    def compute_loss(
        self,
        teacher_outputs: Tensor,
        student_outputs: Tensor,
        sample_weight: Tensor | None = None,
        teacher_step_mask: Tensor | None = None,
        student_step_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Compute the loss.

        Args:
            teacher_outputs: Tensor `(n, ..., c)`, in Keras's image data format.
            student_outputs: Tensor of the same shape.
            sample_weight: Tensor `(n,)`. Weights of positions are averaged.
            teacher_step_mask: Bool tensor `(n, steps)`, true for the teacher's real
                steps; `None` if all are real. The distributions are over steps that are
                real on both sides.
            student_step_mask: The same for the student.
            **kwargs: Ignored.

        Returns:
            Scalar, float32.

        Raises:
            ValueError: If the numbers of channels or the positions differ.
        """
        return ops.channel_wise_distillation(
            detached(teacher_outputs),
            student_outputs,
            self.temperature,
            sample_weight,
            teacher_step_mask,
            student_step_mask,
            replicas.current(),
        )

    def get_config(self) -> Config:
        return {
            "temperature": serialize_weight(self.temperature),
            **super().get_config(),
        }
