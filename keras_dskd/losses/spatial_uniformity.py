"""Loss: features are spread uniformly over the unit sphere."""

from typing import Any

import keras

from keras_dskd import ops
from keras_dskd.internal import replicas
from keras_dskd.internal.types import Config, RowsKind, Tensor
from keras_dskd.losses.base import LayerLoss
from keras_dskd.ops.checks import check_rows_kind, check_temperature
from keras_dskd.ops.step_masks import row_mask


@keras.saving.register_keras_serializable(package="keras_dskd")
class SpatialUniformity(LayerLoss):
    """Uniformity of the student's intermediate features on the unit sphere.

    Formula: with `u` the rows scaled to unit length,

    ```
    log mean_{i<j} exp(-t ||u_i - u_j||²)
    ```

    The value is negative; lower is more uniform. The teacher is not read: in DSKD,
    features of a strong modality are more uniform, and this loss directly makes the
    student's features uniform.

    Args:
        student_layer_name: Student layer to read. `None` for the model's output.
        temperature: `t`, between 1e-6 and 1e6. Defaults to 2, as in the source.
        rows: What becomes a row: `"pooled"` (the mean over positions, one row per
            sample), `"flattened"` (all positions side by side, one row per sample) or
            `"positions"` (one row per position).

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Our reading of "uniformly distributed" in DSKD (Si et al.,
        arXiv 2306.15977): L_uniform of Wang and Isola 2020 (arXiv 2005.10242).
    """

    name = "spatial_uniformity"
    reads_teacher = False

    def __init__(
        self,
        student_layer_name: str | None = None,
        temperature: float = 2.0,
        rows: RowsKind = "pooled",
    ) -> None:
        check_temperature(temperature)
        check_rows_kind(rows)
        super().__init__(None, student_layer_name)
        self.temperature = temperature
        self.rows = rows

    def compute_loss(
        self,
        teacher_outputs: Tensor | None,
        student_outputs: Tensor,
        teacher_mask: Tensor | None = None,
        student_step_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Compute the loss.

        Args:
            teacher_outputs: Ignored.
            student_outputs: Tensor `(n, c)` or `(n, ..., c)`.
            teacher_mask: Ignored: all samples count, with or without a teacher.
            student_step_mask: Bool tensor `(n, steps)`, true for real steps;
                `None` if all are real.
            **kwargs: Ignored.

        Returns:
            Scalar, float32, in [-4 t, 0].

        Raises:
            ValueError: If there are fewer than two rows.
        """
        return ops.spatial_uniformity(
            ops.rows(student_outputs, self.rows, step_mask=student_step_mask),
            self.temperature,
            replicas.current(),
            row_mask(student_outputs, student_step_mask, self.rows),
        )

    def get_config(self) -> Config:
        return {
            "student_layer_name": self.student_layer_name,
            "temperature": self.temperature,
            "rows": self.rows,
        }
