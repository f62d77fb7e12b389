"""Which samples and steps count in each distillation loss, and with which weights."""

import warnings
from typing import NamedTuple

import keras
from keras import ops

from keras_dskd.distiller.loss_term import LossTerm
from keras_dskd.internal import replicas
from keras_dskd.internal.types import Nested, Tensor
from keras_dskd.ops.samples import count_rows, keep_rows, weighted_mean
from keras_dskd.ops.step_masks import all_of, step_weight

#: Keras's losses: each is a mean over samples, and takes no sample weights.
LOSSES_OF_KERAS = (
    keras.distillation.FeatureDistillation,
    keras.distillation.LogitsDistillation,
)


class Weighting(NamedTuple):
    """The weights and masks of a batch for one loss; `None` where there are none.

    Attributes:
        sample_weight: Float tensor `(n,)` or of higher rank.
        teacher_mask: Bool tensor `(n,)`, false for samples without a teacher.
        teacher_step_mask: Bool tensor `(n, steps)`, true for real steps of the
            teacher's feature.
        student_step_mask: The same for the student's feature.
    """

    sample_weight: Tensor | None
    teacher_mask: Tensor | None
    teacher_step_mask: Nested = None
    student_step_mask: Nested = None

    @property
    def has_step_masks(self) -> bool:
        """Whether a side has a step mask."""
        return self.teacher_step_mask is not None or self.student_step_mask is not None

    def arguments(self, term: LossTerm) -> dict[str, Nested]:
        """What the loss's `compute_loss` gets. See `LayerLoss`.

        Raises:
            ValueError: If it cannot leave out the samples without a teacher.
        """
        takes_steps = self.has_step_masks and bool(
            {"teacher_step_mask", "student_step_mask"} & term.arguments
        )
        given = self._with_teacher() if takes_steps and term.teacher_name else self
        arguments = given._asdict()
        if not takes_steps:
            arguments["sample_weight"] = term_weights(
                self.sample_weight, self.teacher_mask
            )
        arguments = {
            name: value for name, value in arguments.items() if value is not None
        }
        _check_takes(term, arguments)
        return {
            name: value for name, value in arguments.items() if name in term.arguments
        }

    def _with_teacher(self) -> "Weighting":
        """The same, with step masks that leave out samples without a teacher."""
        masks = [
            None
            if step_mask is None
            else keras.tree.map_structure(
                lambda mask: all_of(mask, self.teacher_mask), step_mask
            )
            for step_mask in (self.teacher_step_mask, self.student_step_mask)
        ]
        return Weighting(self.sample_weight, self.teacher_mask, *masks)

    def mean_of(
        self,
        loss: keras.distillation.DistillationLoss,
        teacher: Nested,
        student: Nested,
    ) -> Tensor:
        """The weighted mean of a loss of Keras, computed per sample or per step.

        Raises:
            ValueError: If the loss is a sum, or it has several outputs and step masks.
        """
        for function in keras.tree.flatten(loss.loss):
            if getattr(function, "reduction", None) == "sum":
                raise ValueError(
                    f"{type(loss).__name__} must be a mean over samples to be "
                    'weighted. Received: a loss with reduction="sum". Use '
                    'reduction="sum_over_batch_size".'
                )

        def of_one(pair: list[Nested]) -> Tensor:
            return loss.compute_loss(*keras.tree.map_structure(lambda x: x[None], pair))

        if not self.has_step_masks:
            per_sample = ops.vectorized_map(of_one, [teacher, student])  # (n,)
            return weighted_mean(
                per_sample, term_weights(self.sample_weight, self.teacher_mask)
            )
        if keras.tree.is_nested(student):
            raise ValueError(
                f"{type(loss).__name__} cannot leave out the padded steps of several "
                "outputs. Pass one loss per output, with the names of its layers."
            )
        mask = all_of(self.teacher_step_mask, self.student_step_mask, self.teacher_mask)
        axes = len(mask.shape)  # type: ignore[union-attr]
        each = [
            ops.reshape(keep_rows(side, mask), (-1, *side.shape[axes:]))
            for side in (teacher, student)
        ]
        per_step = ops.reshape(ops.vectorized_map(of_one, each), ops.shape(mask))
        return weighted_mean(
            per_step, step_weight(self.sample_weight, mask, replicas.current())
        )


def term_weights(weight: Tensor | None, teacher_mask: Tensor | None) -> Tensor | None:
    """Per-sample weights for losses that are means over samples: `Σ w_i v_i / n`.

    Samples without a teacher get 0. The weights of the other samples are scaled up, so
    that the result is the mean over the other samples.

    Args:
        weight: Tensor `(n,)` or of higher rank, or `None` for 1.
        teacher_mask: Bool tensor `(n,)`, or `None`.

    Returns:
        Tensor `(n,)` or of higher rank, float32, or `None`.
    """
    if teacher_mask is None:
        return weight
    mask = ops.cast(teacher_mask, "float32")
    step_replicas = replicas.current()
    taught = ops.maximum(count_rows(mask, mask, step_replicas), 1.0)
    share = mask * (count_rows(mask, replicas=step_replicas) / taught)
    if weight is None:
        return share
    return ops.reshape(share, (-1,) + (1,) * (len(weight.shape) - 1)) * weight


def is_mean_over_samples(loss: keras.distillation.DistillationLoss) -> bool:
    """Whether it is a loss of Keras whose functions are known to work per sample."""
    return type(loss).compute_loss in [
        cls.compute_loss for cls in LOSSES_OF_KERAS
    ] and all(
        function is None
        or isinstance(function, keras.losses.Loss)
        or getattr(keras.losses, getattr(function, "__name__", ""), None) is function
        for function in keras.tree.flatten(loss.loss)
    )


def _check_takes(term: LossTerm, weighting: dict[str, Nested]) -> None:
    """Raises or warns if a loss cannot weight, or leave out, samples or steps."""
    name = type(term.loss).__name__
    masks = [each for each in weighting if each.endswith("step_mask")]
    if masks and not term.arguments.intersection(masks):
        warnings.warn(
            f"{name} reads a layer with a Keras mask, which does not reach it: padded "
            "steps count in it. Add arguments `teacher_step_mask` and "
            "`student_step_mask` to its `compute_loss`: bool tensors (n, steps), true "
            "for real steps.",
            stacklevel=2,
        )
    if not {"sample_weight", "teacher_mask"} & weighting.keys():
        return
    if {"teacher_mask", "sample_weight"} & term.arguments:
        return
    how = (
        "Add an argument `sample_weight` to its `compute_loss`: a tensor (n,); return "
        "the mean over samples of weight times value. If the loss is not a mean over "
        "samples, add `teacher_mask` instead: a bool tensor (n,)."
    )
    if "teacher_mask" in weighting:
        raise ValueError(
            f'{name} cannot leave out the samples that x["teacher_mask"] marks as '
            f'without a teacher, or x["label_mask"] as without labels. {how}'
        )
    warnings.warn(f"`sample_weight` does not reach {name}. {how}", stacklevel=2)
