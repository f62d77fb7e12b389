"""Loss: the student's attention map matches the teacher's."""

from typing import Any

import keras

from keras_dskd import ops
from keras_dskd.internal import replicas
from keras_dskd.internal.types import Tensor
from keras_dskd.losses.base import LayerLoss
from keras_dskd.ops.sharing import detached


@keras.saving.register_keras_serializable(package="keras_dskd")
class AttentionTransfer(LayerLoss):
    """Attention transfer (AT): student maps are large where teacher maps are large.

    Formula: with `Q` the mean over channels of the squared feature map, flattened and
    scaled to unit length,

    ```
    mean_b ||Q_t,b - Q_s,b||²
    ```

    Use it for spatially registered pairs, whose positions show the same place. The
    numbers of channels may differ. If the grids differ, the finer map is averaged over
    blocks. The teacher is detached.

    Args:
        teacher_layer_name: Teacher layer to read, with a feature map.
        student_layer_name: Student layer to read, with a feature map.

    Source:
        Zagoruyko and Komodakis 2017 (arXiv 1612.03928). See
        `keras_dskd.ops.attention_transfer`.
    """

    name = "attention_transfer"

    def compute_loss(
        self,
        teacher_outputs: Tensor,
        student_outputs: Tensor,
        sample_weight: Tensor | None = None,
        teacher_step_mask: Tensor | None = None,
        student_step_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Compute the loss.

        Args:
            teacher_outputs: Tensor `(n, ..., c_teacher)`.
            student_outputs: Tensor `(n, ..., c_student)`.
            sample_weight: Tensor `(n,)`.
            teacher_step_mask: Bool tensor `(n, steps)`, true for the teacher's real
                steps; `None` if all are real.
            student_step_mask: The same for the student.
            **kwargs: Ignored.

        Returns:
            Scalar, float32, in [0, 2] with equal sample weights.

        Raises:
            ValueError: If a feature has no positions, or one grid is not a multiple of
                the other.
        """
        return ops.attention_transfer(
            detached(teacher_outputs),
            student_outputs,
            sample_weight,
            teacher_step_mask,
            student_step_mask,
            replicas.current(),
        )
