"""Loss: channels that are independent of one another."""

from typing import Any, Literal

import keras

from keras_dskd import ops
from keras_dskd.internal import replicas
from keras_dskd.internal.types import Config, Tensor
from keras_dskd.losses.base import OfLayers
from keras_dskd.ops.checks import check_epsilon, check_weight
from keras_dskd.ops.sharing import detached, sharing

TARGETS = ("teacher", "self")


@keras.saving.register_keras_serializable(package="keras_dskd")
class ChannelIndependence(OfLayers):
    """Channel-wise independence of the student's deep features.

    Formula: with `z` the pooled features standardised per channel over the batch,

    ```
    target="teacher":  C = z_tᵀ z_s / n
                       Σ_i (1 - C_ii)² / c + off_diagonal_weight Σ_{i≠j} C_ij² / c
    target="self":     R = z_sᵀ z_s / n
                       Σ_{i≠j} R_ij² / (c (c - 1))
    ```

    The teacher is detached. Batch statistics need at least two samples, and more
    samples than a few make them less noisy.

    Args:
        teacher_layer_name: Name of the teacher's layer. `None` for the final
            output. Not read with `target="self"`.
        student_layer_name: Name of the student's layer. `None` for the final
            output.
        target: `"teacher"` decorrelates each student channel from all teacher
            channels but its own, which it follows. `"self"` decorrelates the
            student's channels from one another, whatever the teacher does.
        off_diagonal_weight: Weight of decorrelation beside alignment, not negative.
            Only read with `target="teacher"`. Defaults to 0.02.
        epsilon: Added to each variance, positive.

    Raises:
        ValueError: If an argument is out of its range.

    Source:
        Our reading of "channel-wise independent" in DSKD (Si et al.,
        arXiv 2306.15977). `"teacher"` is Barlow Twins (arXiv 2103.03230) with the
        teacher as the other view; `"self"` is the covariance term of VICReg
        (arXiv 2105.04906) on standardised features.
    """

    name = "channel_independence"
    #: Of the teacher's feature its pooled rows are enough, or nothing.
    pools_teacher = True
    reads_teacher = True

    def __init__(
        self,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        target: Literal["teacher", "self"] = "teacher",
        off_diagonal_weight: float = 0.02,
        epsilon: float = 1e-5,
    ) -> None:
        if target not in TARGETS:
            raise ValueError(
                f"`target` must be one of {TARGETS}. Received: target={target!r}"
            )
        check_weight("off_diagonal_weight", off_diagonal_weight)
        check_epsilon(epsilon)
        super().__init__(teacher_layer_name, student_layer_name)
        self.target = target
        self.reads_teacher = target == "teacher"
        self.off_diagonal_weight = off_diagonal_weight
        self.epsilon = epsilon

    def compute_loss(
        self,
        teacher_outputs: Tensor,
        student_outputs: Tensor,
        teacher_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """The loss.

        Args:
            teacher_outputs: Tensor `(n, c)` or `(n, ..., c)`, pooled over positions.
            student_outputs: The same number of channels; positions may differ.
            teacher_mask: Bool tensor `(n,)`, false for samples without a teacher:
                statistics are those of the others, and with fewer than two of them
                the loss is 0. Not read with `target="self"`, which needs no teacher.
            **kwargs: Ignored.

        Returns:
            Scalar, float32.

        Raises:
            ValueError: If there are fewer than two samples or the widths differ.
        """
        student_rows = ops.rows(student_outputs)
        of_step = replicas.current()
        if self.target == "self":
            return ops.off_diagonal_energy(student_rows, self.epsilon, of_step)
        teacher_rows = ops.rows(detached(teacher_outputs))
        compared = (teacher_rows, student_rows, self.epsilon, teacher_mask, of_step)
        with sharing():
            return ops.channel_alignment(
                *compared
            ) + self.off_diagonal_weight * ops.cross_off_diagonal_energy(*compared)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "target": self.target,
            "off_diagonal_weight": self.off_diagonal_weight,
            "epsilon": self.epsilon,
        }
