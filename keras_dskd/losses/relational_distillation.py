"""Loss: distances and angles between samples are those of the teacher."""

from typing import Any

import keras

from keras_dskd import ops
from keras_dskd.internal.types import Config, Tensor
from keras_dskd.losses.base import OfLayers
from keras_dskd.losses.paired_rows import paired_rows, whole_batch
from keras_dskd.ops.checks import check_weight


@keras.saving.register_keras_serializable(package="keras_dskd")
class RelationalDistillation(OfLayers):
    """Relational knowledge distillation (RKD) of pooled features.

    Formula: with `d` the distances between samples divided by their mean, `a` the
    cosines of the angles that three samples form, and `h` the Huber function,

    ```
    v mean_{i≠j} h(d_t,ij - d_s,ij) + w mean_{i≠j≠k≠i} h(a_t,ijk - a_s,ijk)
    ```

    Widths are free. Angles take `n² c + n³` numbers a model. The teacher is detached.

    Args:
        teacher_layer_name: Name of the teacher's layer. `None` for the final
            output.
        student_layer_name: Name of the student's layer. `None` for the final
            output.
        distance_weight: `v`, not negative. 25 as in the source's distillation of
            classifiers.
        angle_weight: `w`, not negative. 50 as in the source. At 0 angles are not
            made.

    Raises:
        ValueError: If a weight is negative.

    Source:
        Park et al. 2019 (arXiv 1904.05068). See `keras_dskd.ops.relational_distance`
        and `keras_dskd.ops.relational_angle`.
    """

    name = "relational_distillation"
    #: Of the teacher's feature its pooled rows are enough.
    pools_teacher = True

    def __init__(
        self,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        distance_weight: float = 25.0,
        angle_weight: float = 50.0,
    ) -> None:
        check_weight("distance_weight", distance_weight)
        check_weight("angle_weight", angle_weight)
        super().__init__(teacher_layer_name, student_layer_name)
        self.distance_weight = distance_weight
        self.angle_weight = angle_weight

    def compute_loss(
        self,
        teacher_outputs: Tensor,
        student_outputs: Tensor,
        teacher_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """The loss.

        Args:
            teacher_outputs: Tensor `(n, c_teacher)` or `(n, ..., c_teacher)`.
            student_outputs: Tensor `(n, c_student)` or `(n, ..., c_student)`.
            teacher_mask: Bool tensor `(n,)`, false for samples without a teacher,
                which form no pairs and triplets.
            **kwargs: Ignored.

        Returns:
            Scalar, float32.

        Raises:
            ValueError: If there are fewer than three samples, or two without angles.
        """
        teacher, student, mask = whole_batch(
            *paired_rows(teacher_outputs, student_outputs, teacher_mask=teacher_mask)
        )
        loss = 0.0
        if self.distance_weight:
            loss = self.distance_weight * ops.relational_distance(
                teacher, student, mask
            )
        if self.angle_weight:
            loss = loss + self.angle_weight * ops.relational_angle(
                teacher, student, mask
            )
        return keras.ops.convert_to_tensor(loss, "float32")

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "distance_weight": self.distance_weight,
            "angle_weight": self.angle_weight,
        }
