"""The values of the distillation losses in one step."""

import warnings
from collections.abc import Sequence

import keras
from keras import ops

from keras_dskd.distiller.loss_term import LossTerm
from keras_dskd.distiller.term_labels import labels_for
from keras_dskd.internal import replicas
from keras_dskd.internal.types import Nested, Tensor
from keras_dskd.ops.checks import is_same_shape
from keras_dskd.ops.samples import count_rows, weighted_mean
from keras_dskd.ops.sharing import sharing

#: Keras's losses: each is a mean over samples, and takes no sample weights.
_OF_KERAS = (
    keras.distillation.FeatureDistillation,
    keras.distillation.LogitsDistillation,
)


def loss_values(
    terms: Sequence[LossTerm],
    teacher_features: dict[str, Nested],
    student_features: dict[str, Nested],
    sample_weight: Tensor | None = None,
    teacher_mask: Tensor | None = None,
    labels: Nested = None,
    student: keras.Model | None = None,
) -> list[Tensor]:
    """The losses' values, float32 scalars.

    A loss gets `sample_weight`, `teacher_mask` and `labels` if they are not `None` and
    its `compute_loss` has an argument of that name.

    Args:
        terms: The losses. A loss that ignores the teacher gets `None` as its feature.
        teacher_features: Dict of layer name -> feature of the teacher.
        student_features: The same for the student.
        sample_weight: What `term_weights` returns.
        teacher_mask: Bool tensor `(n,)`, or `None`.
        labels: The batch's `y`, or `None`.
        student: The student, whose outputs tell a loss which labels are its own.

    Raises:
        ValueError: If a loss does not fit its features, is not a scalar, or cannot
            leave out the samples without a teacher.
    """
    # Squares of half-precision features overflow.
    teacher_features, student_features = keras.tree.map_structure(
        _float32, (teacher_features, student_features)
    )
    with sharing():
        return [
            _value(
                term,
                teacher_features.get(term.teacher_name or ""),
                student_features[term.student_name],
                {"sample_weight": sample_weight, "teacher_mask": teacher_mask},
                labels if student is None else labels_for(term, labels, student),
            )
            for term in terms
        ]


def term_weights(sample_weight: Nested, teacher_mask: Tensor | None) -> Tensor | None:
    """Per-sample weights for losses that are means over samples: `Σ w_i v_i / n`.

    Samples without a teacher get 0. The weights of the other samples are scaled up, so
    that the result is the mean over the other samples.

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
            f"`sample_weight` holds {len(leaves)} arrays, one per output. They weight "
            "only the student's loss. The distillation losses weight all samples "
            "equally.",
            stacklevel=2,
        )
    elif leaves:
        weight = ops.cast(next(iter(leaves.values())), "float32")
        if len(weight.shape) == 2 and weight.shape[1] == 1:
            weight = ops.squeeze(weight, axis=1)
    if teacher_mask is None:
        return weight
    mask = ops.cast(teacher_mask, "float32")
    step_replicas = replicas.current()
    taught = ops.maximum(count_rows(mask, mask, step_replicas), 1.0)
    share = mask * (count_rows(mask, replicas=step_replicas) / taught)
    if weight is None:
        return share
    return ops.reshape(share, (-1,) + (1,) * (len(weight.shape) - 1)) * weight


def _value(
    term: LossTerm,
    teacher: Nested,
    student: Nested,
    given: dict[str, Tensor | None],
    labels: Nested,
) -> Tensor:
    teacher = _as_lists(teacher, student)
    _check_same_structure(term.loss, teacher, student)
    term.loss.validate_outputs(teacher, student)
    if isinstance(term.loss, _OF_KERAS):
        keras.tree.map_structure(_check_same_shape, teacher, student)
    weighting = {name: value for name, value in given.items() if value is not None}
    if weighting and _is_mean_over_samples(term.loss):
        result = _weighted_mean(term.loss, teacher, student, given["sample_weight"])
    else:
        _check_takes_weighting(term, weighting)
        extras = {**weighting, "labels": labels} if labels is not None else weighting
        extras = {name: extras[name] for name in extras if name in term.arguments}
        result = term.loss.compute_loss(teacher, student, **extras)
    result = ops.cast(ops.convert_to_tensor(result), "float32")
    if len(result.shape):
        raise ValueError(
            "A distillation loss must be a scalar. Received from "
            f"{type(term.loss).__name__}: shape {tuple(result.shape)}"
        )
    return result


def _float32(feature: Tensor) -> Tensor:
    feature = ops.convert_to_tensor(feature)
    if keras.backend.is_float_dtype(feature.dtype):
        return ops.cast(feature, "float32")
    return feature


def _as_lists(cached: Nested, structure: Nested) -> Nested:
    """Restores the lists that `tf.data` turned into tuples."""
    if isinstance(structure, dict) and isinstance(cached, dict):
        return {
            key: _as_lists(item, structure.get(key)) for key, item in cached.items()
        }
    is_pair = isinstance(structure, (list, tuple)) and isinstance(cached, (list, tuple))
    if not is_pair or len(structure) != len(cached):
        return cached
    items = map(_as_lists, cached, structure)
    return list(items) if isinstance(structure, list) else type(cached)(items)


def _is_mean_over_samples(loss: keras.distillation.DistillationLoss) -> bool:
    """Whether it is a loss of Keras whose functions are known to work per sample."""
    return type(loss).compute_loss in [cls.compute_loss for cls in _OF_KERAS] and all(
        function is None
        or isinstance(function, keras.losses.Loss)
        or getattr(keras.losses, getattr(function, "__name__", ""), None) is function
        for function in keras.tree.flatten(loss.loss)
    )


def _weighted_mean(
    loss: keras.distillation.DistillationLoss,
    teacher: Nested,
    student: Nested,
    sample_weight: Tensor | None,
) -> Tensor:
    """A loss of Keras, computed per sample and weighted."""
    for function in keras.tree.flatten(loss.loss):
        if getattr(function, "reduction", None) == "sum":
            raise ValueError(
                f"{type(loss).__name__} must be a mean over samples to be weighted. "
                'Received: a loss with reduction="sum". Use '
                'reduction="sum_over_batch_size".'
            )

    def of_one(pair: list[Nested]) -> Tensor:
        return loss.compute_loss(*keras.tree.map_structure(lambda x: x[None], pair))

    per_sample = ops.vectorized_map(of_one, [teacher, student])  # (n,)
    return weighted_mean(per_sample, sample_weight)


def _check_takes_weighting(term: LossTerm, weighting: dict[str, Tensor]) -> None:
    """Raises or warns if a loss cannot weight or leave out samples."""
    if not weighting or {"teacher_mask", "sample_weight"} & term.arguments:
        return
    name = type(term.loss).__name__
    how = (
        "Add an argument `sample_weight` to its `compute_loss`: a tensor (n,); return "
        "the mean over samples of weight times value. If the loss is not a mean over "
        "samples, add `teacher_mask` instead: a bool tensor (n,)."
    )
    if "teacher_mask" in weighting:
        raise ValueError(
            f'{name} cannot leave out the samples that x["teacher_mask"] marks as '
            f"without a teacher. {how}"
        )
    warnings.warn(f"`sample_weight` does not reach {name}. {how}", stacklevel=2)


def _check_same_structure(
    loss: keras.distillation.DistillationLoss, teacher: Nested, student: Nested
) -> None:
    if type(loss).validate_outputs not in (
        keras.distillation.DistillationLoss.validate_outputs,
        keras.distillation.FeatureDistillation.validate_outputs,
    ):
        return
    read = {"teacher": teacher, "student": student}
    if isinstance(loss, _OF_KERAS):
        read["loss"] = loss.loss
    for what, other in read.items():
        try:
            keras.tree.assert_same_structure(teacher, other)
        except (TypeError, ValueError) as error:
            kinds = {
                of: f"{type(value).__name__} of {len(value)}"
                if isinstance(value, (list, tuple, dict))
                else "one"
                for of, value in read.items()
            }
            raise ValueError(
                f"{type(loss).__name__} compares outputs of the same structure, but "
                f"the {what}'s differs. Received: {kinds}. Name layers with one output "
                "each, or pass one loss per output."
            ) from error


def _check_same_shape(teacher: Tensor, student: Tensor) -> None:
    shapes = tuple(teacher.shape), tuple(student.shape)
    if not is_same_shape(*shapes):
        raise ValueError(
            "Teacher and student features must have the same shape: Keras's losses "
            f"would broadcast silently. Received: {shapes[0]} and {shapes[1]}. Give "
            "the student's layer a projector: "
            "Distiller(..., projectors={student_layer_name: keras.layers.Dense(...)})."
        )
