"""What a distiller asks of each distillation loss, ours, Keras's or a user's."""

import inspect
import itertools
import re
from collections.abc import Sequence
from typing import Literal, overload

import keras
from keras import ops

from keras_dskd.distiller import loss_values
from keras_dskd.features.layer_graph import layer_ids
from keras_dskd.features.taps import OUTPUT
from keras_dskd.internal.types import Nested, Role, Tensor
from keras_dskd.ops.sharing import sharing


@overload
def key(loss: keras.distillation.DistillationLoss, role: Literal["student"]) -> str: ...
@overload
def key(loss: keras.distillation.DistillationLoss, role: Role) -> str | None: ...
def key(loss: keras.distillation.DistillationLoss, role: Role) -> str | None:
    """What a loss reads of a model: a layer's name, `OUTPUT`, or `None` for nothing."""
    if role == "teacher" and not _says(loss, "reads_teacher", True):
        return None
    return getattr(loss, f"{role}_layer_name", None) or OUTPUT


def keys(
    losses: Sequence[keras.distillation.DistillationLoss], role: Role
) -> list[str]:
    """What all losses read of a model, each once."""
    read = dict.fromkeys(key(loss, role) for loss in losses)
    return [name for name in read if name is not None]


def _says(
    loss: keras.distillation.DistillationLoss, attribute: str, otherwise: bool
) -> bool:
    """What a loss says of itself, if its own class does: a subclass may read more."""
    if attribute not in vars(type(loss)):
        return otherwise
    return getattr(loss, attribute)


def pooled_of_teacher(
    losses: Sequence[keras.distillation.DistillationLoss],
) -> list[str]:
    """Names of the teacher's layers of which all losses read the pooled rows alone.

    A loss says so by an attribute `pools_teacher`.
    """
    return [
        name
        for name in keys(losses, "teacher")
        if name != OUTPUT
        and all(
            _says(loss, "pools_teacher", False)
            for loss in losses
            if key(loss, "teacher") == name
        )
    ]


def reads_labels(loss: keras.distillation.DistillationLoss) -> bool:
    """Whether a loss's `compute_loss` names `labels`."""
    return "labels" in inspect.signature(loss.compute_loss).parameters


def names(losses: Sequence[keras.distillation.DistillationLoss]) -> list[str]:
    """A metric name a loss: its `name` or its class's, numbered where it is taken."""
    taken = ["loss", "student_loss", "distillation_loss", "total_loss"]
    reserved = len(taken)
    for loss in losses:
        name = getattr(loss, "name", None) or _snake_case(type(loss).__name__)
        numbered = (f"{name}_{number}" for number in itertools.count(1))
        taken.append(
            next(n for n in itertools.chain([name], numbered) if n not in taken)
        )
    return taken[reserved:]


def layers_in(
    losses: Sequence[keras.distillation.DistillationLoss], teacher: keras.Model
) -> list[keras.layers.Layer]:
    """Layers that losses hold as attributes, but for the teacher's: to be trained."""
    of_teacher = layer_ids(teacher)
    found = {}
    for loss in losses:
        for value in keras.tree.flatten(list(vars(loss).values())):
            if isinstance(value, keras.layers.Layer) and id(value) not in of_teacher:
                found[id(value)] = value
    return list(found.values())


def values(
    losses: Sequence[keras.distillation.DistillationLoss],
    teacher_features: dict[str, Nested],
    student_features: dict[str, Nested],
    **given: Nested,
) -> list[Tensor]:
    """The losses' values, float32 scalars.

    Args:
        losses: `DistillationLoss`es. One that reads nothing of the teacher gets `None`.
        teacher_features: Dict of what `keys` names of the teacher.
        student_features: The same of the student.
        **given: `sample_weight`, `teacher_mask`, `labels`: see
            `loss_values.loss_of`.

    Raises:
        ValueError: If a loss does not fit its features, is no scalar, or cannot leave
            out the samples that have no teacher.
    """
    # Squares of half-precision features overflow.
    teacher_features, student_features = keras.tree.map_structure(
        _float32, (teacher_features, student_features)
    )
    with sharing():
        return [
            _value(
                loss,
                teacher_features.get(key(loss, "teacher") or ""),
                student_features[key(loss, "student")],
                given,
            )
            for loss in losses
        ]


def _value(
    loss: keras.distillation.DistillationLoss,
    teacher: Nested,
    student: Nested,
    given: dict[str, Nested],
) -> Tensor:
    teacher = _as_lists(teacher, student)
    _check_same_structure(loss, teacher, student)
    loss.validate_outputs(teacher, student)
    if isinstance(loss, loss_values.OF_KERAS):
        keras.tree.map_structure(_check_same_shape, teacher, student)
    result = ops.cast(
        ops.convert_to_tensor(loss_values.loss_of(loss, teacher, student, **given)),
        "float32",
    )
    if len(result.shape):
        raise ValueError(
            "A distillation loss must be a scalar. Received from "
            f"{type(loss).__name__}: shape {tuple(result.shape)}"
        )
    return result


def _float32(feature: Tensor) -> Tensor:
    feature = ops.convert_to_tensor(feature)
    if keras.backend.is_float_dtype(feature.dtype):
        return ops.cast(feature, "float32")
    return feature


def _as_lists(cached: Nested, structure: Nested) -> Nested:
    """Makes lists again of what Keras makes tuples of on the way through tf.data."""
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
    if isinstance(loss, loss_values.OF_KERAS):
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
                f"{type(loss).__name__} compares outputs of one structure, and the "
                f"{what} has another. Received: {kinds}. Name layers with one output "
                "each, or give a loss for each output."
            ) from error


def _check_same_shape(teacher: Tensor, student: Tensor) -> None:
    shapes = tuple(teacher.shape), tuple(student.shape)
    if len(shapes[0]) != len(shapes[1]) or any(
        None not in (t, s) and t != s for t, s in zip(*shapes, strict=True)
    ):
        raise ValueError(
            "Teacher and student features must have the same shape, which Keras's "
            f"losses would broadcast without a word. Received: {shapes[0]} and "
            f"{shapes[1]}. Give the student's layer a projector: "
            "Distiller(..., projectors={student_layer_name: keras.layers.Dense(...)})."
        )


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
