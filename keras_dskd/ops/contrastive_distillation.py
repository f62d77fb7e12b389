"""Contrast features: each student row must identify its own sample's teacher row."""

from keras import ops

from keras_dskd.internal.types import Tensor
from keras_dskd.ops.checks import as_paired_rows, check_temperature
from keras_dskd.ops.labels import class_indices
from keras_dskd.ops.rows import normalize
from keras_dskd.ops.samples import keep_rows, weighted_mean
from keras_dskd.ops.soft_targets import MASKED_LOGIT


def contrastive_distillation(
    teacher_rows: Tensor,
    student_rows: Tensor,
    temperature: float = 0.2,
    labels: Tensor | None = None,
    sample_weight: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of identifying each sample's teacher feature within the batch.

    Formula: with `u` the rows scaled to unit length, and `N_i` the samples whose class
    differs from sample i's,

    ```
    mean_i -log( exp(u_s,i · u_t,i / T) / Σ_{j in {i} ∪ N_i} exp(u_s,i · u_t,j / T) )
    ```

    Without labels, `N_i` is all other samples. Nothing is detached here.

    Args:
        teacher_rows: Tensor `(n, c)`, at least two rows.
        student_rows: Tensor `(n, c)` of the same samples, in the same order.
        temperature: `T`, between 1e-6 and 1e6. A lower value focuses on the most
            similar samples.
        labels: Class indices `(n,)`, or one-hot labels `(n, classes)`. Samples of one
            class are not contrasted with each other.
        sample_weight: Tensor `(n,)`. See `weighted_mean`.
        mask: Bool tensor `(n,)`, false for rows to leave out, as anchors and as
            negatives. The sum is still divided by n: correct that with `sample_weight`.

    Returns:
        Scalar, float32, at least 0.

    Raises:
        ValueError: If shapes differ, there are fewer than two rows, or `temperature`
            is out of range.

    Source:
        InfoNCE (van den Oord et al. 2018, arXiv 1807.03748, equation 4) between the
        features of student and teacher, as in contrastive representation distillation
        (Tian et al. 2020, arXiv 1910.10699), with the batch in place of a memory bank.
    """
    check_temperature(temperature)
    teacher_rows, student_rows = as_paired_rows(
        teacher_rows, student_rows, same_width=True
    )
    teacher = normalize(keep_rows(teacher_rows, mask))
    student = normalize(keep_rows(student_rows, mask))
    logits = ops.matmul(student, ops.transpose(teacher)) / temperature  # (n, n)
    own = ops.sum(student * teacher, axis=1) / temperature  # (n,)
    index = ops.cumsum(ops.ones_like(own))  # `arange` would need a known batch size.
    is_negative = ops.not_equal(index[:, None], index[None, :])
    if labels is not None:
        classes = class_indices(labels)
        is_negative = ops.logical_and(
            is_negative, ops.not_equal(classes[:, None], classes[None, :])
        )
    if mask is not None:
        is_negative = ops.logical_and(is_negative, ops.cast(mask, "bool")[None, :])
    masked = ops.full_like(logits, MASKED_LOGIT)  # A number takes Keras's `floatx`.
    negatives = ops.logsumexp(ops.where(is_negative, logits, masked), axis=1)  # (n,)
    # -log(exp(own) / (exp(own) + exp(negatives))), without rounding small values to 0.
    cross_entropy = ops.softplus(negatives - own)
    return weighted_mean(keep_rows(cross_entropy, mask), sample_weight)
