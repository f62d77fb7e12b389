"""Contrast: of all teacher features, a student finds its own sample's."""

from keras import ops

from keras_dskd.internal.types import Tensor
from keras_dskd.ops.checks import (
    as_floats,
    check_paired_rows,
    check_same_width,
    check_temperature,
)
from keras_dskd.ops.labels import class_numbers
from keras_dskd.ops.rows import normalize
from keras_dskd.ops.samples import keep_rows, weighted_mean

# Less than any logit, and still a number: exp gives 0, and no gradient.
_NEVER = -1e30


def contrastive_distillation(
    teacher_rows: Tensor,
    student_rows: Tensor,
    temperature: float = 0.2,
    labels: Tensor | None = None,
    sample_weight: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of finding a sample's teacher feature among the batch's.

    Formula: with `u` the rows scaled to unit length, and `N_i` the samples of other
    classes than i's,

    ```
    mean_i -log( exp(u_s,i · u_t,i / T) / Σ_{j in {i} ∪ N_i} exp(u_s,i · u_t,j / T) )
    ```

    Without labels `N_i` is all others. Nothing is detached here.

    Args:
        teacher_rows: Tensor `(n, c)`, at least two rows.
        student_rows: Tensor `(n, c)`, row i of the same sample.
        temperature: `T`, positive. Lower looks at the closest others only.
        labels: Class numbers `(n,)`, or one-hot: samples of one class are then not
            told apart.
        sample_weight: Tensor `(n,)`. See `weighted_mean`.
        mask: Bool tensor `(n,)`, false for rows that are not there: they are neither
            looked for nor found. `sample_weight` should leave them out as well.

    Returns:
        Scalar, float32, at least 0.

    Raises:
        ValueError: If shapes differ, there are fewer than two rows, or `temperature`
            is not positive.

    Source:
        InfoNCE (van den Oord et al. 2018, arXiv 1807.03748, equation 4) between the
        features of student and teacher, as in contrastive representation distillation
        (Tian et al. 2020, arXiv 1910.10699), with the batch in place of a memory.
    """
    check_temperature(temperature)
    teacher_rows = as_floats(teacher_rows, "teacher_rows")
    student_rows = as_floats(student_rows, "student_rows")
    check_paired_rows(teacher_rows, student_rows)
    check_same_width(teacher_rows, student_rows)
    teacher = normalize(keep_rows(teacher_rows, mask))
    student = normalize(keep_rows(student_rows, mask))
    logits = ops.matmul(student, ops.transpose(teacher)) / temperature  # (n, n)
    own = ops.sum(student * teacher, axis=1) / temperature  # (n,)
    number = ops.cumsum(ops.ones_like(own))  # The batch size may be unknown.
    is_other = ops.not_equal(number[:, None], number[None, :])
    if labels is not None:
        classes = class_numbers(labels)
        is_other = ops.logical_and(
            is_other, ops.not_equal(classes[:, None], classes[None, :])
        )
    if mask is not None:
        is_other = ops.logical_and(is_other, ops.cast(mask, "bool")[None, :])
    # log(1 + Σ exp(other - own)), and softplus loses nothing where that is small.
    others = ops.logsumexp(ops.where(is_other, logits, _NEVER), axis=1)  # (n,)
    return weighted_mean(keep_rows(ops.softplus(others - own), mask), sample_weight)
