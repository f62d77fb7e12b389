"""Compare a class distribution with the teacher's most likely class."""

from keras import ops

from keras_dskd.internal.types import Tensor
from keras_dskd.ops.labels import is_class
from keras_dskd.ops.paired_logits import as_paired_logits
from keras_dskd.ops.samples import weighted_mean


def hard_targets(
    teacher_logits: Tensor,
    student_logits: Tensor,
    sample_weight: Tensor | None = None,
    axis: int = -1,
) -> Tensor:
    """Cross-entropy of the student with the teacher's most likely class.

    Formula:

    ```
    -log softmax(student)_k,  k = argmax(teacher)
    ```

    averaged over the batch and any further axes. The teacher gets no gradient.

    Args:
        teacher_logits: Tensor `(n, ..., classes)`: logits or probabilities, whose
            largest value is at the same class.
        student_logits: Tensor of the same shape, before the softmax.
        sample_weight: Tensor `(n,)`, or weights along the first axes without the
            classes. See `weighted_mean`.
        axis: Axis of the classes.

    Returns:
        Scalar, float32, at least 0.

    Raises:
        ValueError: If the shapes differ, there are fewer than two classes, or `axis`
            does not exist.

    Source:
        Touvron et al. 2021, DeiT (arXiv 2012.12877), equation 3, the second term.
    """
    teacher, student = as_paired_logits(teacher_logits, student_logits, axis)
    target = is_class(ops.argmax(teacher, axis=-1), student.shape[-1])
    logs = ops.log_softmax(student, axis=-1)
    cross_entropy = -ops.sum(ops.where(target, logs, 0.0), axis=-1)  # (n, ...)
    return weighted_mean(cross_entropy, sample_weight)
