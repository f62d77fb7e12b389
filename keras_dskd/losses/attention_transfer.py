"""Loss: the student looks where the teacher looks."""

from typing import Any

import keras

from keras_dskd import ops
from keras_dskd.internal.types import Tensor
from keras_dskd.losses.base import OfLayers
from keras_dskd.ops.sharing import detached


@keras.saving.register_keras_serializable(package="keras_dskd")
class AttentionTransfer(OfLayers):
    """Attention transfer (AT): feature maps large where the teacher's are.

    Formula: with `Q` the mean over channels of the squared feature map, flattened and
    scaled to unit length,

    ```
    mean_b ||Q_t,b - Q_s,b||²
    ```

    Widths are free; of two grids the finer is averaged over blocks. For pairs that are
    registered. The teacher is detached.

    Args:
        teacher_layer_name: Name of the teacher's layer, a feature map.
        student_layer_name: Name of the student's layer, a feature map.

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
        **kwargs: Any,
    ) -> Tensor:
        """The loss.

        Args:
            teacher_outputs: Tensor `(n, ..., c_teacher)`.
            student_outputs: Tensor `(n, ..., c_student)`.
            sample_weight: Tensor `(n,)`, weights of the samples.
            **kwargs: Ignored.

        Returns:
            Scalar, float32, in [0, 2] where samples weigh the same.

        Raises:
            ValueError: If a feature has no positions, or the grids do not fit.
        """
        return ops.attention_transfer(
            detached(teacher_outputs), student_outputs, sample_weight
        )
