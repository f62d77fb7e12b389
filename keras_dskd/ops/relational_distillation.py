"""Relations between samples: distances and angles, in both models' features."""

from keras import ops

from keras_dskd.internal.types import Tensor
from keras_dskd.ops.checks import as_floats, check_paired_rows
from keras_dskd.ops.rows import normalize
from keras_dskd.ops.samples import keep_rows


def relational_distance(
    teacher_rows: Tensor, student_rows: Tensor, mask: Tensor | None = None
) -> Tensor:
    """How differently two models place samples far from one another.

    Formula: with `d` the distances between rows, divided by their mean, and `h` the
    Huber function (half the square up to 1, beyond it the distance less a half),

    ```
    mean_{i≠j} h(d_t,ij - d_s,ij)
    ```

    Widths may differ. Nothing is detached here.

    Args:
        teacher_rows: Tensor `(n, c_teacher)`, at least two rows.
        student_rows: Tensor `(n, c_student)`, row i of the same sample.
        mask: Bool tensor `(n,)`, true for the rows to look at. With fewer than two
            of them the value is 0.

    Returns:
        Scalar, float32, at least 0.

    Raises:
        ValueError: If the numbers of rows differ or are below two.

    Source:
        Park et al. 2019, RKD (arXiv 1904.05068), equations 4 to 7. The authors' code
        also counts the n pairs i = j, which are 0.
    """
    teacher_rows, student_rows = _checked(teacher_rows, student_rows)
    pairs = _distinct_pairs(student_rows, mask)  # (n, n), 0 or 1
    teacher, student = (
        _relative_distances(keep_rows(rows, mask), pairs)
        for rows in (teacher_rows, student_rows)
    )
    return _mean(_huber(teacher - student), pairs)


def relational_angle(
    teacher_rows: Tensor, student_rows: Tensor, mask: Tensor | None = None
) -> Tensor:
    """How differently two models see the angles that three samples form.

    Formula: with `a_ijk` the cosine of the angle at row j between rows i and k, and
    `h` as in `relational_distance`,

    ```
    mean_{i≠j≠k≠i} h(a_t,ijk - a_s,ijk)
    ```

    Needs `n² c + n³` numbers for each model: 3 million at n = 128 and c = 64. Widths
    may differ. Nothing is detached here.

    Args:
        teacher_rows: Tensor `(n, c_teacher)`, at least three rows.
        student_rows: Tensor `(n, c_student)`, row i of the same sample.
        mask: Bool tensor `(n,)`, true for the rows to look at. With fewer than three
            of them the value is 0.

    Returns:
        Scalar, float32, in [0, 1.5].

    Raises:
        ValueError: If the numbers of rows differ or are below three.

    Source:
        Park et al. 2019, RKD (arXiv 1904.05068), equations 8 to 10. The authors' code
        also counts triplets in which a row occurs twice.
    """
    teacher_rows, student_rows = _checked(teacher_rows, student_rows)
    # (A batch of any size is no integer while JAX works out shapes.)
    if isinstance(student_rows.shape[0], int) and student_rows.shape[0] < 3:
        raise ValueError(
            "Angles need at least 3 rows. Received: student_rows.shape="
            f"{tuple(student_rows.shape)}. Use a larger batch."
        )
    pairs = _distinct_pairs(student_rows, mask)
    # Axes are j, i, k. With all pairs of three distinct, the triplet is.
    triplets = pairs[:, :, None] * pairs[:, None, :] * pairs[None, :, :]
    teacher, student = (
        _cosines(keep_rows(rows, mask)) for rows in (teacher_rows, student_rows)
    )
    return _mean(_huber(teacher - student), triplets)


def _checked(teacher_rows: Tensor, student_rows: Tensor) -> tuple[Tensor, Tensor]:
    teacher_rows = as_floats(teacher_rows, "teacher_rows")
    student_rows = as_floats(student_rows, "student_rows")
    check_paired_rows(teacher_rows, student_rows)
    return teacher_rows, student_rows


def _distinct_pairs(rows: Tensor, mask: Tensor | None) -> Tensor:
    there = ops.ones_like(rows[:, 0])
    if mask is not None:
        there = ops.cast(mask, "float32")
    number = ops.cumsum(ops.ones_like(rows[:, 0]))  # The batch size may be unknown.
    distinct = ops.cast(ops.not_equal(number[:, None], number[None, :]), "float32")
    return distinct * there[:, None] * there[None, :]


def _relative_distances(rows: Tensor, pairs: Tensor) -> Tensor:
    rows = _less_their_scale(rows)
    differences = rows[:, None, :] - rows[None, :, :]  # (n, n, c)
    squares = ops.sum(ops.square(differences), axis=-1)
    # The root has no slope at 0.
    is_zero = ops.equal(squares * pairs, 0.0)
    distances = ops.where(is_zero, 0.0, ops.sqrt(ops.where(is_zero, 1.0, squares)))
    mean = _mean(distances, pairs)
    return distances / ops.where(ops.equal(mean, 0.0), 1.0, mean)


def _cosines(rows: Tensor) -> Tensor:
    rows = _less_their_scale(rows)
    differences = rows[None, :, :] - rows[:, None, :]  # (n, n, c): from j to i
    shape = ops.shape(differences)
    units = ops.reshape(normalize(ops.reshape(differences, (-1, rows.shape[1]))), shape)
    return ops.matmul(units, ops.transpose(units, (0, 2, 1)))  # (n, n, n)


def _less_their_scale(rows: Tensor) -> Tensor:
    # Which changes neither relative distances nor angles; squares would overflow.
    largest = ops.max(ops.abs(rows))
    return rows / ops.stop_gradient(ops.where(ops.equal(largest, 0.0), 1.0, largest))


def _huber(difference: Tensor) -> Tensor:
    size = ops.abs(difference)
    return ops.where(size <= 1.0, 0.5 * ops.square(difference), size - 0.5)


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    return ops.sum(values * counted) / ops.maximum(ops.sum(counted), 1.0)
