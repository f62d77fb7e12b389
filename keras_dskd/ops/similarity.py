"""Compare the similarities between samples in two models."""

from keras import ops

from keras_dskd.internal.types import Tensor
from keras_dskd.ops.checks import as_paired_rows
from keras_dskd.ops.rows import center, divide_by_largest, normalize
from keras_dskd.ops.samples import count_rows, keep_rows


def similarity_preserving(
    teacher_rows: Tensor, student_rows: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Squared distance between the sample similarities of two models.

    Formula: with `G = x xᵀ (n, n)` the products of all pairs of rows, and each row of
    `G` scaled to unit length,

    ```
    Σ_ij (G_t,ij - G_s,ij)² / n²
    ```

    The numbers of channels may differ. Nothing is detached here.

    Args:
        teacher_rows: Tensor `(n, c_teacher)`, at least two rows.
        student_rows: Tensor `(n, c_student)` of the same samples, in the same order.
        mask: Bool tensor `(n,)`, true for the rows to include. With fewer than two, the
            result is 0.

    Returns:
        Scalar, float32, in [0, 4 / n].

    Raises:
        ValueError: If the numbers of rows differ or are below two.

    Source:
        Tung and Mori 2019 (arXiv 1907.09682), equations 2 to 4.
    """
    teacher_rows, student_rows = as_paired_rows(teacher_rows, student_rows)
    count = count_rows(student_rows, mask)
    teacher, student = (
        normalize(_products(keep_rows(rows, mask)))
        for rows in (teacher_rows, student_rows)
    )
    squares = ops.sum(ops.square(teacher - student))
    return ops.where(count >= 2, squares / ops.square(ops.maximum(count, 1.0)), 0.0)


def centered_kernel_alignment(
    teacher_rows: Tensor, student_rows: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Linear CKA: similarity of two representations, invariant to rotation and scale.

    Formula: with `x` centered per channel and `K = x xᵀ (n, n)`,

    ```
    <K_t, K_s> / (||K_t|| ||K_s||)
    ```

    It is 1 if the representations differ only by a rotation and a scale, and 0 if one
    of them is constant. With few rows and many channels it is biased upwards. The
    numbers of channels may differ. Nothing is detached here.

    Args:
        teacher_rows: Tensor `(n, c_teacher)`, at least two rows.
        student_rows: Tensor `(n, c_student)` of the same samples, in the same order.
        mask: Bool tensor `(n,)`, true for the rows to include. With fewer than two, the
            result is 0.

    Returns:
        Scalar, float32, in [0, 1].

    Raises:
        ValueError: If the numbers of rows differ or are below two.

    Source:
        Kornblith et al. 2019 (arXiv 1905.00414), equation 3 with linear kernels.
    """
    teacher_rows, student_rows = as_paired_rows(teacher_rows, student_rows)
    teacher, student = (
        normalize(ops.reshape(_products(center(rows, mask)), (1, -1)))
        for rows in (teacher_rows, student_rows)
    )
    return ops.sum(teacher * student)


def _products(rows: Tensor) -> Tensor:
    """Products of all pairs of rows `(n, n)`, up to a factor that cancels out later."""
    rows = divide_by_largest(rows)
    return ops.matmul(rows, ops.transpose(rows))
