"""Compare distances and angles between samples in two models."""

from keras import ops

from keras_dskd.internal.types import Tensor
from keras_dskd.ops.checks import as_paired_rows
from keras_dskd.ops.rows import divide_by_largest, normalize
from keras_dskd.ops.samples import keep_rows


def relational_distance(
    teacher_rows: Tensor, student_rows: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Difference between the sample distances of two models.

    Formula: with `d` the distances between rows divided by their mean, and `h` the
    Huber function (`x² / 2` up to |x| = 1, `|x| - 1/2` beyond),

    ```
    mean_{i≠j} h(d_t,ij - d_s,ij)
    ```

    The numbers of channels may differ. Nothing is detached here.

    Args:
        teacher_rows: Tensor `(n, c_teacher)`, at least two rows.
        student_rows: Tensor `(n, c_student)` of the same samples, in the same order.
        mask: Bool tensor `(n,)`, true for the rows to include. With fewer than two, the
            result is 0.

    Returns:
        Scalar, float32, at least 0.

    Raises:
        ValueError: If the numbers of rows differ or are below two.

    Source:
        Park et al. 2019, RKD (arXiv 1904.05068), equations 4 to 7. The authors' code
        also counts the n pairs i = j, whose value is 0.
    """
    teacher_rows, student_rows = as_paired_rows(teacher_rows, student_rows)
    pairs = _distinct_pairs(student_rows, mask)  # (n, n), 0 or 1
    teacher, student = (
        _relative_distances(keep_rows(rows, mask), pairs)
        for rows in (teacher_rows, student_rows)
    )
    return _mean(_huber(teacher - student), pairs)


def relational_angle(
    teacher_rows: Tensor, student_rows: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Difference between the angles that three samples form in two models.

    Formula: with `a_ijk` the cosine of the angle at row j between rows i and k, and
    `h` as in `relational_distance`,

    ```
    mean_{i≠j≠k≠i} h(a_t,ijk - a_s,ijk)
    ```

    Memory: `n² c + n³` numbers per model, 3 million at n = 128 and c = 64. The numbers
    of channels may differ. Nothing is detached here.

    Args:
        teacher_rows: Tensor `(n, c_teacher)`, at least three rows.
        student_rows: Tensor `(n, c_student)` of the same samples, in the same order.
        mask: Bool tensor `(n,)`, true for the rows to include. With fewer than three,
            the result is 0.

    Returns:
        Scalar, float32, in [0, 1.5].

    Raises:
        ValueError: If the numbers of rows differ or are below three.

    Source:
        Park et al. 2019, RKD (arXiv 1904.05068), equations 8 to 10. The authors' code
        also counts triplets in which a row occurs twice.
    """
    teacher_rows, student_rows = as_paired_rows(teacher_rows, student_rows)
    # (JAX's shape inference gives an unknown batch size a symbol, not an int.)
    if isinstance(student_rows.shape[0], int) and student_rows.shape[0] < 3:
        raise ValueError(
            "Angles need at least 3 rows. Received: student_rows.shape="
            f"{tuple(student_rows.shape)}. Use a larger batch."
        )
    pairs = _distinct_pairs(student_rows, mask)
    # Axes are j, i, k. A triplet is distinct if its three pairs are.
    triplets = pairs[:, :, None] * pairs[:, None, :] * pairs[None, :, :]
    teacher, student = (
        _cosines(keep_rows(rows, mask)) for rows in (teacher_rows, student_rows)
    )
    return _mean(_huber(teacher - student), triplets)


def _distinct_pairs(rows: Tensor, mask: Tensor | None) -> Tensor:
    """1 for pairs of different rows that the mask keeps, else 0: `(n, n)`."""
    ones = ops.ones_like(rows[:, 0])
    is_valid = ones if mask is None else ops.cast(mask, "float32")
    index = ops.cumsum(ones)  # `arange` would need a known batch size.
    distinct = ops.cast(ops.not_equal(index[:, None], index[None, :]), "float32")
    return distinct * is_valid[:, None] * is_valid[None, :]


def _relative_distances(rows: Tensor, pairs: Tensor) -> Tensor:
    rows = _without_offset_and_scale(rows)
    differences = rows[:, None, :] - rows[None, :, :]  # (n, n, c)
    squares = ops.sum(ops.square(differences), axis=-1)
    # The gradient of a square root at 0 is infinite.
    is_zero = ops.equal(squares * pairs, 0.0)
    distances = ops.where(is_zero, 0.0, ops.sqrt(ops.where(is_zero, 1.0, squares)))
    mean = _mean(distances, pairs)
    return distances / ops.where(ops.equal(mean, 0.0), 1.0, mean)


def _cosines(rows: Tensor) -> Tensor:
    rows = _without_offset_and_scale(rows)
    differences = rows[None, :, :] - rows[:, None, :]  # (n, n, c): from j to i
    shape = ops.shape(differences)
    units = ops.reshape(normalize(ops.reshape(differences, (-1, rows.shape[1]))), shape)
    return ops.matmul(units, ops.transpose(units, (0, 2, 1)))  # (n, n, n)


def _without_offset_and_scale(rows: Tensor) -> Tensor:
    """Rows with the same relative distances and angles, whose squares fit float32."""
    # Subtract one row first: dividing rows far from zero would round their differences.
    return divide_by_largest(rows - ops.stop_gradient(rows[:1]))


def _huber(difference: Tensor) -> Tensor:
    size = ops.abs(difference)
    return ops.where(size <= 1.0, 0.5 * ops.square(difference), size - 0.5)


def _mean(values: Tensor, is_counted: Tensor) -> Tensor:
    return ops.sum(values * is_counted) / ops.maximum(ops.sum(is_counted), 1.0)
