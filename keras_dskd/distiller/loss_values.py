"""Samples that count more, less, or not at all in the terms."""

import inspect
import warnings

import keras
from keras import ops

from keras_dskd.internal import replicas
from keras_dskd.internal.types import Nested, Tensor
from keras_dskd.ops.samples import count_rows, weighted_mean

#: Losses of Keras's, each a mean over samples that takes no weights.
OF_KERAS = (
    keras.distillation.FeatureDistillation,
    keras.distillation.LogitsDistillation,
)


def of_terms(sample_weight: Nested, teacher_mask: Tensor | None) -> Tensor | None:
    """What a term weighs samples by, if it is a mean over them: `Σ w_i v_i / n`.

    Samples without a teacher weigh 0, and the others as if there were no more.

    Args:
        sample_weight: As `compute_loss` of a Keras model gets it, or `None`.
        teacher_mask: Bool tensor `(n,)`, or `None`.

    Returns:
        Tensor `(n,)` or of higher rank, float32, or `None`.
    """
    leaves = {
        id(leaf): leaf for leaf in keras.tree.flatten(sample_weight) if leaf is not None
    }
    weight = None
    if len(leaves) > 1:
        warnings.warn(
            f"`sample_weight` holds {len(leaves)} arrays, one an output: they weigh "
            "the student's loss alone. In distillation each sample counts the same.",
            stacklevel=2,
        )
    elif leaves:
        weight = ops.cast(next(iter(leaves.values())), "float32")
        if len(weight.shape) == 2 and weight.shape[1] == 1:
            weight = ops.squeeze(weight, axis=1)
    if teacher_mask is None:
        return weight
    mask = ops.cast(teacher_mask, "float32")
    of_step = replicas.current()
    there = ops.maximum(count_rows(mask, mask, of_step), 1.0)
    share = mask * (count_rows(mask, replicas=of_step) / there)
    if weight is None:
        return share
    return ops.reshape(share, (-1,) + (1,) * (len(weight.shape) - 1)) * weight


def loss_of(
    loss: keras.distillation.DistillationLoss,
    teacher: Nested,
    student: Nested,
    sample_weight: Tensor | None = None,
    teacher_mask: Tensor | None = None,
    labels: Nested = None,
) -> Tensor:
    """A loss's value, with its samples weighed.

    A loss gets those of the last three that are not `None`, and that its
    `compute_loss` names.

    Args:
        loss: A `DistillationLoss`.
        teacher: What it reads of the teacher.
        student: What it reads of the student.
        sample_weight: What `of_terms` gives.
        teacher_mask: Bool tensor `(n,)`, or `None`.
        labels: What the batch holds as `y`, or `None`.

    Raises:
        ValueError: If the loss cannot leave out the samples that have no teacher.
    """
    given = {"sample_weight": sample_weight, "teacher_mask": teacher_mask}
    given = {name: value for name, value in given.items() if value is not None}
    name = type(loss).__name__
    if given and _is_mean_over_samples(loss):
        for function in keras.tree.flatten(loss.loss):
            if getattr(function, "reduction", None) == "sum":
                raise ValueError(
                    f"{name} weighs samples in a mean over them. Received: a loss with "
                    'reduction="sum". Use reduction="sum_over_batch_size".'
                )
        return weighted_mean(_of_each_sample(loss, teacher, student), sample_weight)
    named = inspect.signature(loss.compute_loss).parameters
    if given and "teacher_mask" not in named and "sample_weight" not in named:
        how = (
            "Name `sample_weight` among the arguments of its `compute_loss`: a tensor "
            "(n,), and the loss the mean over samples of weight times value. A loss "
            "that is no such mean names `teacher_mask`: a bool tensor (n,)."
        )
        if teacher_mask is not None:
            raise ValueError(
                f'{name} cannot leave out the samples that x["teacher_mask"] says have '
                f"no teacher. {how}"
            )
        warnings.warn(
            f"`sample_weight` does not reach {name}. {how}",
            stacklevel=2,
        )
    if labels is not None:
        given["labels"] = labels
    return loss.compute_loss(
        teacher, student, **{name: given[name] for name in given if name in named}
    )


def _is_mean_over_samples(loss: keras.distillation.DistillationLoss) -> bool:
    """Whether it is one of Keras's, with functions that are known to be of a sample."""
    return type(loss).compute_loss in [of.compute_loss for of in OF_KERAS] and all(
        function is None
        or isinstance(function, keras.losses.Loss)
        or getattr(keras.losses, getattr(function, "__name__", ""), None) is function
        for function in keras.tree.flatten(loss.loss)
    )


def _of_each_sample(
    loss: keras.distillation.DistillationLoss, teacher: Nested, student: Nested
) -> Tensor:
    """A loss of Keras's, which is a mean over samples, for each: `(n,)`."""

    def of_one(pair: list[Nested]) -> Tensor:
        return loss.compute_loss(*keras.tree.map_structure(lambda x: x[None], pair))

    return ops.vectorized_map(of_one, [teacher, student])
