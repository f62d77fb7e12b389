"""Loss: each student channel follows its teacher channel."""

from typing import Any

import keras

from keras_dskd import ops
from keras_dskd.internal import replicas
from keras_dskd.internal.types import Config, RowsKind, Tensor
from keras_dskd.losses.base import OfLayers
from keras_dskd.losses.paired_rows import paired_rows
from keras_dskd.ops.checks import check_epsilon, check_rows_kind


@keras.saving.register_keras_serializable(package="keras_dskd")
class ChannelAlignment(OfLayers):
    """Channel-wise correlation of the student's features with the teacher's.

    Formula: with `z` the rows standardised per channel over the batch,

    ```
    C_ii = mean(z_t,i z_s,i),  Σ_i (1 - C_ii)² / c
    ```

    Each student channel follows its teacher channel, whatever the scale: the
    aligning half of `ChannelIndependence`, and the half that measured best. The
    teacher is detached.

    Args:
        teacher_layer_name: Name of the teacher's layer. `None` for the final
            output.
        student_layer_name: Name of the student's layer. `None` for the final
            output.
        epsilon: Added to each variance, positive.
        rows: `"pooled"`: the means over positions follow the teacher's. `"positions"`:
            each position follows the same one of the teacher's, for pairs that are
            registered; the finer of two grids is averaged over blocks.

    Raises:
        ValueError: If an argument is out of its range.

    Source:
        The invariance term of Barlow Twins (arXiv 2103.03230, equation 1) with the
        teacher as the other view.
    """

    name = "channel_alignment"
    #: Of the teacher's feature its pooled rows are enough, unless positions count.
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
        **kwargs: Any,
    ) -> Tensor:
        """The loss.

        Args:
            teacher_outputs: Tensor `(n, c)` or `(n, ..., c)`.
            student_outputs: The same number of channels.
            teacher_mask: Bool tensor `(n,)`, false for samples without a teacher:
                statistics are those of the others, and with fewer than two of them
                the loss is 0.
            **kwargs: Ignored.

        Returns:
            Scalar, float32, in [0, 4].

        Raises:
            ValueError: If there are fewer than two samples, or widths or grids differ.
        """
        teacher, student, mask = paired_rows(
            teacher_outputs, student_outputs, self.rows, teacher_mask
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
