"""Loss: the student's features regress on the teacher's."""

from typing import Any

import keras

from keras_dskd import ops
from keras_dskd.internal import replicas
from keras_dskd.internal.types import Config, RowsKind, Tensor
from keras_dskd.losses.base import OfLayers
from keras_dskd.losses.paired_rows import paired_rows
from keras_dskd.ops.checks import check_epsilon, check_rows_kind


@keras.saving.register_keras_serializable(package="keras_dskd")
class FitNet(OfLayers):
    """FitNet's regression on the teacher's features, each channel standardised.

    Formula: with `z` the rows standardised per channel over the batch,

    ```
    Σ_bi (z_t,bi - z_s,bi)² / (n c)
    ```

    The teacher is detached. Other widths than the teacher's take a projector.

    Args:
        teacher_layer_name: Name of the teacher's layer. `None` for the final
            output.
        student_layer_name: Name of the student's layer. `None` for the final
            output.
        rows: `"pooled"`: the means over positions are compared. `"positions"`: each
            position with the same one of the teacher's, for pairs that are registered;
            the finer of two grids is averaged over blocks.
        epsilon: Added to each variance, positive.

    Raises:
        ValueError: If an argument is out of its range.

    Source:
        Romero et al. 2015 (arXiv 1412.6550). See
        `keras_dskd.ops.standardized_distance`.
    """

    name = "fitnet"
    #: Of the teacher's feature its pooled rows are enough, unless positions count.
    pools_teacher = True

    def __init__(
        self,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        rows: RowsKind = "pooled",
        epsilon: float = 1e-5,
    ) -> None:
        check_epsilon(epsilon)
        check_rows_kind(rows)
        super().__init__(teacher_layer_name, student_layer_name)
        self.rows = rows
        self.epsilon = epsilon
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
        return ops.standardized_distance(
            teacher, student, self.epsilon, mask, replicas.current()
        )

    def get_config(self) -> Config:
        return {**super().get_config(), "rows": self.rows, "epsilon": self.epsilon}
