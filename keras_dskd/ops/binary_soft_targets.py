"""Compare softened probabilities of labels that do not exclude one another."""

from keras import ops

from keras_dskd.internal.types import Tensor
from keras_dskd.ops.paired_outputs import as_paired_outputs
from keras_dskd.ops.samples import weighted_mean
from keras_dskd.ops.soft_targets import (
    check_divergence_temperature,
    relative_entropy,
)


def binary_soft_targets(
    teacher_logits: Tensor,
    student_logits: Tensor,
    temperature: float = 4.0,
    sample_weight: Tensor | None = None,
) -> Tensor:
    """KL divergence of the student's softened label probabilities from the teacher's.

    Formula: with `σ` the sigmoid, and `Bern(p)` the distribution of one label with
    probability `p`,

    ```
    T² mean over labels of KL(Bern(σ(teacher / T)) || Bern(σ(student / T)))
    ```

    in nats, averaged over the batch and any further axes. The factor T² keeps the size
    of the gradient independent of T. For a single label this equals `soft_targets` of
    the two logits 0 and z. Nothing is detached here.

    Args:
        teacher_logits: Tensor `(n, ..., labels)`, or `(n,)` for a single label, before
            the sigmoid.
        student_logits: Tensor of the same shape. `(n,)` and `(n, 1)` match.
        temperature: `T`, between 1e-6 and 1000. A higher value gives more influence to
            labels of which the teacher is certain.
        sample_weight: Tensor `(n,)`, or weights along the first axes of the logits. See
            `weighted_mean`.

    Returns:
        Scalar, float32, at least 0.

    Raises:
        ValueError: If the shapes differ or `temperature` is out of range.

    Source:
        Hinton, Vinyals and Dean 2015 (arXiv 1503.02531), section 2, for each label
        apart, as in the multi-label logits distillation of Yang et al. 2023 (arXiv
        2308.06453), which sums over the labels.
    """
    check_divergence_temperature(temperature)
    names = "teacher_logits", "student_logits"
    pair = as_paired_outputs(teacher_logits, student_logits, names)
    teacher, student = (_log_probabilities(logits / temperature) for logits in pair)
    divergence = relative_entropy(teacher, student)  # (n, ..., labels)
    return temperature**2 * weighted_mean(divergence, sample_weight)


def _log_probabilities(logits: Tensor) -> Tensor:
    """`(log σ(z), log(1 - σ(z)))` on a new last axis."""
    return ops.stack([ops.log_sigmoid(logits), ops.log_sigmoid(-logits)], axis=-1)
