"""Loss: each student channel follows its teacher channel."""

import keras

from keras_dskd import ops
from keras_dskd.model_features import check_layer_name
from keras_dskd.ops.checks import check_epsilon
from keras_dskd.ops.sharing import detached


@keras.saving.register_keras_serializable(package="keras_dskd")
class ChannelAlignment(keras.distillation.DistillationLoss):
    """Channel-wise correlation of the student's features with the teacher's.

    Formula: with `z` the pooled features standardised per channel over the batch,

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

    Raises:
        ValueError: If `epsilon` is not positive.

    Source:
        The invariance term of Barlow Twins (arXiv 2103.03230, equation 1) with the
        teacher as the other view.
    """

    name = "channel_alignment"
    #: Of the teacher's feature its pooled rows are enough.
    pools_teacher = True

    def __init__(self, teacher_layer_name=None, student_layer_name=None, epsilon=1e-5):
        check_epsilon(epsilon)
        check_layer_name(teacher_layer_name)
        check_layer_name(student_layer_name)
        # Keras's own Distiller reads the student's layer only where the teacher's
        # is not None, and takes "" for the teacher's final output.
        student_alone = teacher_layer_name is None and student_layer_name is not None
        self.teacher_layer_name = "" if student_alone else teacher_layer_name
        self.student_layer_name = student_layer_name
        self.epsilon = epsilon

    def validate_outputs(self, teacher_outputs, student_outputs):
        """Accepts any pair: `compute_loss` checks what it uses."""

    def compute_loss(
        self, teacher_outputs, student_outputs, teacher_mask=None, **kwargs
    ):
        """The loss.

        Args:
            teacher_outputs: Tensor `(n, c)` or `(n, ..., c)`, pooled over positions.
            student_outputs: The same number of channels; positions may differ.
            teacher_mask: Bool tensor `(n,)`, false for samples without a teacher:
                statistics are those of the others, and with fewer than two of them
                the loss is 0.
            **kwargs: Ignored.

        Returns:
            Scalar, float32, in [0, 4].

        Raises:
            ValueError: If there are fewer than two samples or the widths differ.
        """
        return ops.channel_alignment(
            ops.rows(detached(teacher_outputs)),
            ops.rows(student_outputs),
            self.epsilon,
            teacher_mask,
        )

    def get_config(self):
        return {
            "teacher_layer_name": self.teacher_layer_name or None,
            "student_layer_name": self.student_layer_name,
            "epsilon": self.epsilon,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**config)
