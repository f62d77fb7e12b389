"""Loss: features spread evenly over the unit sphere."""

import keras

from keras_dskd import ops
from keras_dskd.model_features import check_layer_name
from keras_dskd.ops.checks import check_rows_kind, check_temperature


@keras.saving.register_keras_serializable(package="keras_dskd")
class SpatialUniformity(keras.distillation.DistillationLoss):
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
    #: Of the teacher's feature nothing is read.
    pools_teacher = True

    def __init__(self, student_layer_name=None, temperature=2.0, rows="pooled"):
        check_temperature(temperature)
        check_rows_kind(rows)
        check_layer_name(student_layer_name)
        # Keras's own Distiller reads the student's layer only where the teacher's
        # is not None, and takes "" for the teacher's final output.
        self.teacher_layer_name = None if student_layer_name is None else ""
        self.student_layer_name = student_layer_name
        self.temperature = temperature
        self.rows = rows

    def validate_outputs(self, teacher_outputs, student_outputs):
        """Accepts any pair: `compute_loss` checks what it uses."""

    def compute_loss(
        self, teacher_outputs, student_outputs, teacher_mask=None, **kwargs
    ):
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
            ops.rows(student_outputs, self.rows), self.temperature
        )

    def get_config(self):
        return {
            "student_layer_name": self.student_layer_name,
            "temperature": self.temperature,
            "rows": self.rows,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**config)
