"""Loss: features spread evenly over the unit sphere."""

from typing import Any

import keras

from keras_dskd import ops
from keras_dskd.internal import replicas
from keras_dskd.internal.types import Config, RowsKind, Tensor
from keras_dskd.losses.base import OfLayers
from keras_dskd.ops.checks import check_rows_kind, check_temperature


@keras.saving.register_keras_serializable(package="keras_dskd")
class SpatialUniformity(OfLayers):
    """Uniform distribution of the student's intermediate features on the sphere.

    Formula: with `u` the rows scaled to unit length,

    ```
    log mean_{i<j} exp(-t ||u_i - u_j||²)
    ```

    The teacher is not read: what its features show is that a strong modality's
    are more uniform. The value is negative, and lower is more uniform.

    Args:
        student_layer_name: Name of the student's layer. `None` for the final
            output.
        temperature: `t`, positive. 2 as in the source.
        rows: What becomes a row: `"pooled"` (the mean over positions, one row a
            sample), `"flattened"` (one row a sample, all positions) or
            `"positions"` (each position a row).

    Raises:
        ValueError: If an argument is out of its range.

    Source:
        Our reading of "uniformly distributed" in DSKD (Si et al.,
        arXiv 2306.15977): L_uniform of Wang and Isola 2020 (arXiv 2005.10242).
    """

    name = "spatial_uniformity"
    #: The teacher need not run for it.
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
        **kwargs: Any,
    ) -> Tensor:
        """The loss.

        Args:
            teacher_outputs: Not read.
            student_outputs: Tensor `(n, c)` or `(n, ..., c)`.
            teacher_mask: Not read: no sample needs a teacher here.
            **kwargs: Ignored.

        Returns:
            Scalar, float32, in [-4 t, 0].

        Raises:
            ValueError: If there are fewer than two rows.
        """
        return ops.spatial_uniformity(
            ops.rows(student_outputs, self.rows),
            self.temperature,
            replicas.current(),
        )

    def get_config(self) -> Config:
        return {
            "student_layer_name": self.student_layer_name,
            "temperature": self.temperature,
            "rows": self.rows,
        }
