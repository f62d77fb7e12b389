"""Loss: different channels are decorrelated."""

from typing import Any, Literal

import keras

from keras_dskd import ops
from keras_dskd.internal import replicas
from keras_dskd.internal.types import Config, Tensor
from keras_dskd.losses.base import LayerLoss
from keras_dskd.losses.paired_rows import paired_rows
from keras_dskd.ops.checks import check_epsilon, check_number
from keras_dskd.ops.sharing import sharing
from keras_dskd.ops.step_masks import row_mask

TARGETS = ("teacher", "self")


@keras.saving.register_keras_serializable(package="keras_dskd")
class ChannelIndependence(LayerLoss):
    """Channel-wise independence of the student's deep features.

    Formula: with `z` the pooled features standardized per channel over the batch,

    ```
    target="teacher":  C = z_tᵀ z_s / n
                       Σ_i (1 - C_ii)² / c + off_diagonal_weight Σ_{i≠j} C_ij² / c
    target="self":     R = z_sᵀ z_s / n
                       Σ_{i≠j} R_ij² / (c (c - 1))
    ```

    The correlations are batch statistics: they need at least two samples, and small
    batches make them noisy. With `target="teacher"` and different numbers of channels,
    use a projector. The teacher's feature is detached.

    Args:
        teacher_layer_name: Teacher layer to read. `None` for the model's output.
            Ignored with `target="self"`.
        student_layer_name: Student layer to read. `None` for the model's output.
        target: `"teacher"` correlates each student channel with its teacher channel,
            and decorrelates it from the other teacher channels. `"self"` decorrelates
            the student's channels from each other, without the teacher.
        off_diagonal_weight: Weight of the decorrelation term relative to the alignment
            term, at least 0. Ignored with `target="self"`.
        epsilon: Positive number, added to each variance.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Our reading of "channel-wise independent" in DSKD (Si et al.,
        arXiv 2306.15977). `"teacher"` is Barlow Twins (arXiv 2103.03230) with the
        teacher as the other view; `"self"` is the covariance term of VICReg
        (arXiv 2105.04906) on standardized features.
    """

    name = "channel_independence"
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
        check_number("off_diagonal_weight", off_diagonal_weight)
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
        teacher_step_mask: Tensor | None = None,
        student_step_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Compute the loss.

        Args:
            teacher_outputs: Tensor `(n, c)`, or `(n, ..., c)`, which is pooled over
                positions.
            student_outputs: The same. Its number of positions may differ.
            teacher_mask: Bool tensor `(n,)`, false for samples without a teacher.
                The statistics leave these out. The loss is 0 if fewer than two samples
                remain. Ignored with `target="self"`, which needs no teacher.
            teacher_step_mask: Bool tensor `(n, steps)`, true for the teacher's real
                steps; `None` if all are real.
            student_step_mask: The same for the student.
            **kwargs: Ignored.

        Returns:
            Scalar, float32.

        Raises:
            ValueError: If there are fewer than two samples or the numbers of channels
                differ.
        """
        current = replicas.current()
        if self.target == "self":
            return ops.off_diagonal_energy(
                ops.rows(student_outputs, step_mask=student_step_mask),
                self.epsilon,
                current,
                row_mask(student_outputs, student_step_mask),
            )
        teacher_rows, student_rows, mask = paired_rows(
            teacher_outputs,
            student_outputs,
            "pooled",
            teacher_mask,
            teacher_step_mask,
            student_step_mask,
        )
        given = (teacher_rows, student_rows, self.epsilon, mask, current)
        with sharing():
            alignment = ops.channel_alignment(*given)
            decorrelation = ops.cross_off_diagonal_energy(*given)
        return alignment + self.off_diagonal_weight * decorrelation

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "target": self.target,
            "off_diagonal_weight": self.off_diagonal_weight,
            "epsilon": self.epsilon,
        }
