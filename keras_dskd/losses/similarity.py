"""Losses: samples are as similar to each other as in the teacher."""

from typing import Any

import keras

from keras_dskd import ops
from keras_dskd.internal import replicas
from keras_dskd.internal.types import Config, RowsKind, Tensor
from keras_dskd.losses.base import LayerLoss
from keras_dskd.losses.paired_rows import (
    gather_global_batch,
    paired_rows,
    value_mask,
)
from keras_dskd.ops.checks import check_rows_kind
from keras_dskd.ops.samples import count_rows, mean_of_rows


class _SampleSimilarity(LayerLoss):
    """A loss on similarities between samples, with one row per sample."""

    def __init__(
        self,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        rows: RowsKind = "pooled",
    ) -> None:
        check_rows_kind(rows)
        if rows == "positions":
            raise ValueError(
                'Samples are compared, one row each: `rows` must be "pooled" or '
                f'"flattened". Received: rows={rows!r}'
            )
        super().__init__(teacher_layer_name, student_layer_name)
        self.rows = rows
        self.pools_teacher = rows == "pooled"

    def get_config(self) -> Config:
        return {**super().get_config(), "rows": self.rows}


def _fill(
    rows: Tensor, feature: Tensor, mask: Tensor | None, step_mask: Tensor | None
) -> Tensor:
    """Replace padding in flattened rows by its channel's mean over real steps.

    Centering then makes it 0.
    """
    kept = value_mask([feature], mask, [step_mask])
    if kept is None or len(kept.shape) == 1:
        return rows
    means = mean_of_rows(rows, kept, replicas.current())
    return keras.ops.where(kept, rows, means)


@keras.saving.register_keras_serializable(package="keras_dskd")
class SimilarityPreserving(_SampleSimilarity):
    """Similarity-preserving distillation (SP).

    Formula: with `G = x xᵀ (n, n)` the products of all pairs of samples, and each row
    of `G` scaled to unit length,

    ```
    Σ_ij (G_t,ij - G_s,ij)² / n²
    ```

    The numbers of channels may differ. The teacher is detached.

    Args:
        teacher_layer_name: Teacher layer to read. `None` for the model's output.
        student_layer_name: Student layer to read. `None` for the model's output.
        rows: `"flattened"` (all positions, as in the source) or `"pooled"` (the mean
            over positions).

    Raises:
        ValueError: If `rows` is neither.

    Source:
        Tung and Mori 2019 (arXiv 1907.09682), with a weight of 3000. See
        `keras_dskd.ops.similarity_preserving`.
    """

    name = "similarity_preserving"
    pools_teacher = True

    def __init__(
        self,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        rows: RowsKind = "flattened",
    ) -> None:
        super().__init__(teacher_layer_name, student_layer_name, rows)

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
            teacher_mask: Bool tensor `(n,)`, false for samples without a teacher, which
                are left out. The loss is 0 if fewer than two samples remain.
            teacher_step_mask: Bool tensor `(n, steps)`, true for the teacher's real
                steps; `None` if all are real.
            student_step_mask: The same for the student.
            **kwargs: Ignored.

        Returns:
            Scalar, float32, in [0, 4 / n].

        Raises:
            ValueError: If there are fewer than two samples.
        """
        rows = paired_rows(
            teacher_outputs,
            student_outputs,
            self.rows,
            teacher_mask,
            teacher_step_mask,
            student_step_mask,
        )
        return ops.similarity_preserving(*gather_global_batch(*rows))


@keras.saving.register_keras_serializable(package="keras_dskd")
class CenteredKernelAlignment(_SampleSimilarity):
    """`1 - CKA`: distance of two representations, up to a rotation and a scale.

    Formula: with `x` centered per channel and `K = x xᵀ (n, n)`,

    ```
    1 - <K_t, K_s> / (||K_t|| ||K_s||)
    ```

    The numbers of channels may differ. The teacher is detached.

    Args:
        teacher_layer_name: Teacher layer to read. `None` for the model's output.
        student_layer_name: Student layer to read. `None` for the model's output.
        rows: `"pooled"` (the mean over positions) or `"flattened"` (all positions).

    Raises:
        ValueError: If `rows` is neither.

    Source:
        Kornblith et al. 2019 (arXiv 1905.00414), linear kernels. See
        `keras_dskd.ops.centered_kernel_alignment`.
    """

    name = "centered_kernel_alignment"
    pools_teacher = True

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
            teacher_mask: Bool tensor `(n,)`, false for samples without a teacher, which
                are left out. The loss is 0 if fewer than two samples remain.
            teacher_step_mask: Bool tensor `(n, steps)`, true for the teacher's real
                steps; `None` if all are real.
            student_step_mask: The same for the student.
            **kwargs: Ignored.

        Returns:
            Scalar, float32, in [0, 1].

        Raises:
            ValueError: If there are fewer than two samples.
        """
        teacher, student, mask = paired_rows(
            teacher_outputs,
            student_outputs,
            self.rows,
            teacher_mask,
            teacher_step_mask,
            student_step_mask,
        )
        if self.rows == "flattened":
            teacher = _fill(teacher, teacher_outputs, mask, teacher_step_mask)
            student = _fill(student, student_outputs, mask, student_step_mask)
        teacher, student, mask = gather_global_batch(teacher, student, mask)
        loss = 1.0 - ops.centered_kernel_alignment(teacher, student, mask)
        if mask is None:
            return loss
        return keras.ops.where(count_rows(student, mask) >= 2, loss, 0.0)
