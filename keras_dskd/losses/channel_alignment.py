"""Loss: each student channel correlates with its teacher channel."""

from typing import Any

import keras

from keras_dskd import ops
from keras_dskd.internal import replicas
from keras_dskd.internal.types import Config, RowsKind, Tensor
from keras_dskd.losses.base import LayerLoss
from keras_dskd.losses.paired_rows import paired_rows, value_mask
from keras_dskd.ops.checks import check_epsilon, check_rows_kind


@keras.saving.register_keras_serializable(package="keras_dskd")
class ChannelAlignment(LayerLoss):
    """Deviation from 1 of each student channel's correlation with its teacher channel.

    Formula: with `z` the rows standardized per channel over the batch,

    ```
    C_ii = mean(z_t,i z_s,i),  Σ_i (1 - C_ii)² / c
    ```

    The scale and mean of a channel do not matter. This is the alignment term of
    `ChannelIndependence`, which measured better than its other term. If the numbers
    of channels differ, use a projector. The teacher is detached.

    Args:
        teacher_layer_name: Teacher layer to read. `None` for the model's output.
        student_layer_name: Student layer to read. `None` for the model's output.
        epsilon: Positive number, added to each variance.
        rows: `"pooled"` correlates the means over positions. `"positions"` correlates
            each position with the teacher's same position, for spatially registered
            pairs; if the grids differ, the finer map is averaged over blocks.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        The invariance term of Barlow Twins (arXiv 2103.03230, equation 1) with the
        teacher as the other view.
    """

    name = "channel_alignment"
    pools_teacher = True

    def __init__(
        self,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        epsilon: float = 1e-5,
        rows: RowsKind = "pooled",
    ) -> None:
        check_epsilon(epsilon)
        check_rows_kind(rows)
        super().__init__(teacher_layer_name, student_layer_name)
        self.epsilon = epsilon
        self.rows = rows
        self.pools_teacher = rows == "pooled"

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
            teacher_outputs: Tensor `(n, c)` or `(n, ..., c)`.
            student_outputs: Tensor `(n, c)` or `(n, ..., c)`.
            teacher_mask: Bool tensor `(n,)`, false for samples without a teacher.
                The statistics leave these out. The loss is 0 if fewer than two samples
                remain.
            teacher_step_mask: Bool tensor `(n, steps)`, true for the teacher's real
                steps; `None` if all are real.
            student_step_mask: The same for the student.
            **kwargs: Ignored.

        Returns:
            Scalar, float32, in [0, 4].

        Raises:
            ValueError: If there are fewer than two samples, or channels or grids do
                not match.
        """
        teacher, student, mask = paired_rows(
            teacher_outputs,
            student_outputs,
            self.rows,
            teacher_mask,
            teacher_step_mask,
            student_step_mask,
        )
        if self.rows == "flattened":
            mask = value_mask(
                (teacher_outputs, student_outputs),
                mask,
                (teacher_step_mask, student_step_mask),
            )
        return ops.channel_alignment(
            teacher, student, self.epsilon, mask, replicas.current()
        )

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "epsilon": self.epsilon,
            "rows": self.rows,
        }
