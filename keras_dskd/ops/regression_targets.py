"""Compare the outputs of two regression models."""

from keras import ops

from keras_dskd.internal.types import Tensor
from keras_dskd.ops.checks import check_number
from keras_dskd.ops.labels import check_one_array
from keras_dskd.ops.paired_outputs import as_paired_outputs
from keras_dskd.ops.samples import weighted_mean


def regression_targets(
    teacher_outputs: Tensor,
    student_outputs: Tensor,
    sample_weight: Tensor | None = None,
) -> Tensor:
    """Mean squared difference of two models' outputs.

    Formula, with `d` values in each output:

    ```
    mean_b ||teacher_b - student_b||² / d
    ```

    Nothing is detached here.

    Args:
        teacher_outputs: Tensor `(n, ..., d)`, or `(n,)`.
        student_outputs: Tensor of the same shape. `(n,)` and `(n, 1)` match.
        sample_weight: Tensor `(n,)`, or weights along the first axes of the outputs.
            See `weighted_mean`.

    Returns:
        Scalar, float32, at least 0.

    Raises:
        ValueError: If the shapes differ.

    Source:
        Ba and Caruana 2014 (arXiv 1312.6184), equation 1, up to a factor of 2.
    """
    names = "teacher_outputs", "student_outputs"
    teacher, student = as_paired_outputs(teacher_outputs, student_outputs, names)
    return weighted_mean(ops.square(teacher - student), sample_weight)


def bounded_regression(
    teacher_outputs: Tensor,
    student_outputs: Tensor,
    labels: Tensor,
    margin: float = 0.0,
    sample_weight: Tensor | None = None,
) -> Tensor:
    """Squared error of the student where it is not better than the teacher.

    Formula, with `d` values in each output, and `m` the margin:

    ```
    e_s = ||student - label||² / d,  e_t = ||teacher - label||² / d
    mean over samples of (e_s if e_s + m > e_t else 0)
    ```

    The teacher is an upper bound: the student is not asked to copy its errors. The
    teacher gets no gradient.

    Args:
        teacher_outputs: Tensor `(n, ..., d)`, or `(n,)`.
        student_outputs: Tensor of the same shape. `(n,)` and `(n, 1)` match.
        labels: Array of the same shape. `(n,)` and `(n, 1)` match.
        margin: `m`, at least 0, in squared units of the outputs.
        sample_weight: Tensor `(n,)`, or weights along the first axes without the last.
            See `weighted_mean`.

    Returns:
        Scalar, float32, at least 0.

    Raises:
        ValueError: If labels are missing, the shapes differ or `margin` is negative.

    Source:
        Chen et al. 2017, learning efficient object detection models with knowledge
        distillation (NeurIPS), equation 4, which sums over the values: a margin `m`
        there is `m / d` here.
    """
    check_number("margin", margin)
    check_one_array(labels)
    teacher, student = as_paired_outputs(
        teacher_outputs, student_outputs, ("teacher_outputs", "student_outputs")
    )
    labels, student = as_paired_outputs(labels, student, ("labels", "student_outputs"))
    teacher_error = ops.mean(ops.square(teacher - labels), axis=-1)  # (n, ...)
    student_error = ops.mean(ops.square(student - labels), axis=-1)
    is_worse = student_error + margin > teacher_error
    return weighted_mean(ops.where(is_worse, student_error, 0.0), sample_weight)
