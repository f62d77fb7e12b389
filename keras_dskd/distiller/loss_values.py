"""The values of the distillation losses in one step."""

from collections.abc import Sequence

import keras
from keras import ops

from keras_dskd.distiller.label_masks import labels_of
from keras_dskd.distiller.loss_settings import at_step
from keras_dskd.distiller.loss_term import LossTerm
from keras_dskd.distiller.output_weights import weights_for
from keras_dskd.distiller.term_labels import labels_for
from keras_dskd.distiller.weighting import (
    LOSSES_OF_KERAS,
    Weighting,
    is_mean_over_samples,
)
from keras_dskd.internal.types import Nested, Tensor
from keras_dskd.ops.checks import is_same_shape
from keras_dskd.ops.sharing import sharing
from keras_dskd.ops.step_masks import all_of


def loss_values(
    terms: Sequence[LossTerm],
    teacher_features: dict[str, Nested],
    student_features: dict[str, Nested],
    sample_weight: Nested = None,
    teacher_mask: Tensor | None = None,
    label_mask: Tensor | None = None,
    labels: Nested = None,
    student: keras.Model | None = None,
    teacher_step_masks: dict[str, Nested] | None = None,
    student_step_masks: dict[str, Nested] | None = None,
    step: Tensor | None = None,
) -> list[Tensor]:
    """The losses' values, float32 scalars.

    A loss gets `sample_weight`, `teacher_mask`, `labels`, `teacher_step_mask` and
    `student_step_mask` if they are not `None` and its `compute_loss` has an argument of
    that name. See `LayerLoss`.

    Args:
        terms: The losses. A loss that ignores the teacher gets `None` as its feature.
        teacher_features: Dict of layer name -> feature of the teacher.
        student_features: The same for the student.
        sample_weight: As `compute_loss` of a Keras model gets it, or `None`.
        teacher_mask: Bool tensor `(n,)`, or `None`.
        label_mask: Bool tensor `(n,)`, false for samples without labels, or `None`.
            Losses that read labels leave these out as they do samples without teacher.
        labels: The batch's `y`, or `None`.
        student: The student, whose outputs tell a loss which labels are its own.
        teacher_step_masks: Dict of layer name -> step mask of the teacher's feature.
        student_step_masks: The same for the student.
        step: The training step, for temperatures that follow a schedule. Defaults to 0.

    Raises:
        ValueError: If a loss does not fit its features, is not a scalar, or cannot
            leave out the samples without a teacher.
    """
    # Squares of half-precision features overflow.
    teacher_features, student_features = keras.tree.map_structure(
        _float32, (teacher_features, student_features)
    )
    values = []
    with sharing():
        for term in terms:
            own_labels, mask = labels, teacher_mask
            if student is not None:
                own_labels = labels_for(term, labels, student)
            if "labels" not in term.arguments:
                own_labels = None
            if own_labels is not None and label_mask is not None:
                own_labels = labels_of(own_labels, label_mask)
                mask = all_of(teacher_mask, label_mask)
            weighting = Weighting(
                weights_for(term, sample_weight, student),
                mask,
                (teacher_step_masks or {}).get(term.teacher_name or ""),
                (student_step_masks or {}).get(term.student_name),
            )
            values.append(
                _value(
                    at_step(term, step),
                    teacher_features.get(term.teacher_name or ""),
                    student_features[term.student_name],
                    weighting,
                    own_labels,
                )
            )
    return values


def _value(
    term: LossTerm,
    teacher: Nested,
    student: Nested,
    weighting: Weighting,
    labels: Nested,
) -> Tensor:
    teacher = _as_lists(teacher, student)
    _check_same_structure(term.loss, teacher, student)
    term.loss.validate_outputs(teacher, student)
    if isinstance(term.loss, LOSSES_OF_KERAS):
        keras.tree.map_structure(_check_same_shape, teacher, student)
    if is_mean_over_samples(term.loss) and any(each is not None for each in weighting):
        result = weighting.mean_of(term.loss, teacher, student)
    else:
        arguments = weighting.arguments(term)
        if labels is not None:
            arguments["labels"] = labels
        result = term.loss.compute_loss(teacher, student, **arguments)
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


def _check_same_structure(
    loss: keras.distillation.DistillationLoss, teacher: Nested, student: Nested
) -> None:
    if type(loss).validate_outputs not in (
        keras.distillation.DistillationLoss.validate_outputs,
        keras.distillation.FeatureDistillation.validate_outputs,
    ):
        return
    read = {"teacher": teacher, "student": student}
    if isinstance(loss, LOSSES_OF_KERAS):
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
