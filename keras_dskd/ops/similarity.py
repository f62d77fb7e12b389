"""Similarities between samples, compared between two models."""

from keras import ops

from keras_dskd.internal.types import Tensor
from keras_dskd.ops.checks import as_floats, check_paired_rows
from keras_dskd.ops.rows import centre, normalize
from keras_dskd.ops.samples import count_rows, keep_rows


def similarity_preserving(
    teacher_rows: Tensor, student_rows: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Squared distance between the similarities of samples in two models.

    Formula: with `G` the products of all pairs of rows, `x xᵀ (n, n)`, each of its rows
    scaled to unit length,

    ```
    Σ_ij (G_t,ij - G_s,ij)² / n²
    ```

    Widths may differ. Nothing is detached here.

    Args:
        teacher_rows: Tensor `(n, c_teacher)`, at least two rows.
        student_rows: Tensor `(n, c_student)`, row i of the same sample.
        mask: Bool tensor `(n,)`, true for the rows to look at. With fewer than two
            of them the value is 0.

    Returns:
        Scalar, float32, in [0, 4 / n].

    Raises:
        ValueError: If the numbers of rows differ or are below two.

    Source:
        Tung and Mori 2019 (arXiv 1907.09682), equations 2 to 4.
    """
    teacher_rows, student_rows = _checked(teacher_rows, student_rows)
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
    """Similarity of two representations, whatever their widths, scales and rotations.

    Formula: with `x` centred per channel and `K = x xᵀ (n, n)`,

    ```
    <K_t, K_s> / (||K_t|| ||K_s||)
    ```

    which is linear CKA. 1 for representations that differ by a rotation and a scale;
    0 where one of them does not vary. With few rows and many channels it is biased
    upwards. Nothing is detached here.

    Args:
        teacher_rows: Tensor `(n, c_teacher)`, at least two rows.
        student_rows: Tensor `(n, c_student)`, row i of the same sample.
        mask: Bool tensor `(n,)`, true for the rows to look at. With fewer than two
            of them the value is 0.

    Returns:
        Scalar, float32, in [0, 1].

    Raises:
        ValueError: If the numbers of rows differ or are below two.

    Source:
        Kornblith et al. 2019 (arXiv 1905.00414), equation 3 with linear kernels.
    """
    teacher_rows, student_rows = _checked(teacher_rows, student_rows)
    teacher, student = (
        _products(centre(rows, mask)) for rows in (teacher_rows, student_rows)
    )
    teacher, student = (
        normalize(ops.reshape(products, (1, -1))) for products in (teacher, student)
    )
    return ops.sum(teacher * student)


def _checked(teacher_rows: Tensor, student_rows: Tensor) -> tuple[Tensor, Tensor]:
    teacher_rows = as_floats(teacher_rows, "teacher_rows")
    student_rows = as_floats(student_rows, "student_rows")
    check_paired_rows(teacher_rows, student_rows)
    return teacher_rows, student_rows


def _products(rows: Tensor) -> Tensor:
    # Unit length takes out any scale, and products of large features would overflow.
    largest = ops.max(ops.abs(rows))
    rows = rows / ops.stop_gradient(ops.where(ops.equal(largest, 0.0), 1.0, largest))
    return ops.matmul(rows, ops.transpose(rows))  # (n, n)
