"""Loss: distances and angles between samples match the teacher's."""

from typing import Any

import keras

from keras_dskd import ops
from keras_dskd.internal.types import Config, Tensor
from keras_dskd.losses.base import LayerLoss
from keras_dskd.losses.paired_rows import gather_global_batch, paired_rows
from keras_dskd.ops.checks import check_number


@keras.saving.register_keras_serializable(package="keras_dskd")
class RelationalDistillation(LayerLoss):
    """Relational knowledge distillation (RKD) of pooled features.

    Formula: with `d` the distances between samples divided by their mean, `a` the
    cosines of the angles that three samples form, and `h` the Huber function,

    ```
    v mean_{i≠j} h(d_t,ij - d_s,ij) + w mean_{i≠j≠k≠i} h(a_t,ijk - a_s,ijk)
    ```

    The numbers of channels may differ. Angles need memory for `n² c + n³` numbers per
    model. The teacher is detached.

    Args:
        teacher_layer_name: Teacher layer to read. `None` for the model's output.
        student_layer_name: Student layer to read. `None` for the model's output.
        distance_weight: `v`, at least 0. Defaults to 25, as in the source for
            classification.
        angle_weight: `w`, at least 0. Defaults to 50, as in the source. At 0, angles
            are not computed.

    Raises:
        ValueError: If a weight is negative.

    Source:
        Park et al. 2019 (arXiv 1904.05068). See `keras_dskd.ops.relational_distance`
        and `keras_dskd.ops.relational_angle`.
    """

    name = "relational_distillation"
    pools_teacher = True

    def __init__(
        self,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        distance_weight: float = 25.0,
        angle_weight: float = 50.0,
    ) -> None:
        check_number("distance_weight", distance_weight)
        check_number("angle_weight", angle_weight)
        super().__init__(teacher_layer_name, student_layer_name)
        self.distance_weight = distance_weight
        self.angle_weight = angle_weight

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
            teacher_outputs: Tensor `(n, c_teacher)` or `(n, ..., c_teacher)`.
            student_outputs: Tensor `(n, c_student)` or `(n, ..., c_student)`.
            teacher_mask: Bool tensor `(n,)`, false for samples without a teacher.
                Pairs and triplets with these are left out.
            teacher_step_mask: Bool tensor `(n, steps)`, true for the teacher's real
                steps; `None` if all are real.
            student_step_mask: The same for the student.
            **kwargs: Ignored.

        Returns:
            Scalar, float32.

        Raises:
            ValueError: If there are fewer than three samples (two if `angle_weight` is
                0).
        """
        teacher, student, mask = gather_global_batch(
            *paired_rows(
                teacher_outputs,
                student_outputs,
                "pooled",
                teacher_mask,
                teacher_step_mask,
                student_step_mask,
            )
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
