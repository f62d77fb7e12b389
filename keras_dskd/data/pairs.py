"""Split a batch by modality: the teacher's input and the student's input."""

from typing import Any, Literal, NamedTuple

import keras
from keras import ops

from keras_dskd.internal.feature_names import OUTPUT
from keras_dskd.internal.members import members_of
from keras_dskd.internal.types import Nested, Role, Shape, Tensor
from keras_dskd.ops.checks import is_same_shape

KEYS = ("teacher", "student", "teacher_features", "teacher_mask", "label_mask")
#: What is true for the samples that a mask keeps.
_MASKS = {
    "teacher_mask": "samples that have the teacher's modality",
    "label_mask": "samples that have labels",
}


class Pair(NamedTuple):
    """One batch split by modality; missing parts are `None`."""

    teacher: Any
    student: Any
    teacher_features: Any
    teacher_mask: Any = None
    label_mask: Any = None


def is_pair(x: Nested) -> bool:
    """Whether `x` is a dict with one entry per modality."""
    return isinstance(x, dict) and any(key in x for key in KEYS)


def split(x: Nested) -> Pair:
    """Splits an input by modality.

    Args:
        x: `{"teacher": ..., "student": ...}`, where each value is any structure that
            its model accepts. `"teacher_features"` may replace `"teacher"`, and
            `"teacher_mask"` and `"label_mask"` may be added. One array of features is
            the final output. Anything else goes to both models unchanged.

    Returns:
        A `Pair`.

    Raises:
        ValueError: If a paired dict lacks the student's input or has unknown keys.
    """
    if not is_pair(x):
        return Pair(teacher=x, student=x, teacher_features=None)
    unknown = sorted(str(key) for key in x if key not in KEYS)
    if unknown:
        raise ValueError(
            f"A paired input has the keys {KEYS}. Received unknown keys: {unknown}"
        )
    if "student" not in x:
        raise ValueError(
            'A paired input needs the key "student". Received keys: '
            f"{sorted(x)}. The student's modality is the one used at run time."
        )
    pair = Pair(*(x.get(key) for key in KEYS))
    if hasattr(pair.teacher_features, "shape"):
        return pair._replace(teacher_features={OUTPUT: pair.teacher_features})
    return pair


def teacher_input(x: Nested) -> Nested:
    """The teacher's input.

    Raises:
        ValueError: If a paired input lacks it.
    """
    pair = split(x)
    if pair.teacher is None:
        raise ValueError(
            f'The teacher\'s modality is missing: x["teacher"]. Received: {sorted(x)}'
        )
    return pair.teacher


def row_mask(pair: Pair, key: Literal["teacher_mask", "label_mask"]) -> Tensor | None:
    """Which samples have a teacher, or labels: a bool tensor `(n,)`, `None` for all.

    Raises:
        ValueError: If the mask is not one array with one value per sample.
    """
    mask = getattr(pair, key)
    if mask is None:
        return None
    shapes = [tuple(getattr(leaf, "shape", ())) for leaf in keras.tree.flatten(mask)]
    if len(shapes) != 1 or not shapes[0] or shapes[0][1:] not in ((), (1,)):
        raise ValueError(
            f'x["{key}"] must be an array of shape (n,), true for {_MASKS[key]}. '
            f"Received: shape {shapes}"
        )
    mask = ops.reshape(ops.cast(keras.tree.flatten(mask)[0], "bool"), (-1,))
    samples = keras.tree.flatten(pair.student)[0].shape[0]
    if not is_same_shape(mask.shape[:1], (samples,)):
        raise ValueError(
            f'x["{key}"] holds {mask.shape[0]} samples, and x["student"] {samples}.'
        )
    return mask


def check_cached_rows(pair: Pair) -> None:
    """Raises `ValueError` if cached features have another number of samples."""
    samples = keras.tree.flatten(pair.student)[0].shape[0]
    for name, feature in pair.teacher_features.items():
        for array in keras.tree.flatten(feature):
            if not is_same_shape(array.shape[:1], (samples,)):
                raise ValueError(
                    f'x["teacher_features"][{name!r}] holds {array.shape[0]} samples, '
                    f'and x["student"] {samples}. They need one row per sample.'
                )


def holds_teacher(x: Nested, teacher: keras.Model) -> bool:
    """Whether an input contains the teacher's input. `False` if this is unknown."""
    if is_pair(x):
        return x.get("teacher") is not None
    return fits(teacher, x) is True


def input_of(model: keras.Model) -> Nested:
    """A model's input as `KerasTensor`s in its structure; `None` if undeclared."""
    if members_of(model):
        declared = {key: input_of(it) for key, it in members_of(model).items()}
        return None if None in declared.values() else declared
    inputs = getattr(model, "inputs", None)
    if not inputs:
        return None
    return inputs[0] if isinstance(model, keras.Sequential) else model.input


def check_input(
    role: Role, pair: Pair, teacher: keras.Model, student: keras.Model
) -> None:
    """Raises `ValueError` if the shapes of a model's input do not fit the model.

    Args:
        role: `"teacher"` or `"student"`: the model whose input to check.
        pair: The `Pair` with its input.
        teacher: The teacher.
        student: The student.
    """
    x = getattr(pair, role)
    model, other = (teacher, student) if role == "teacher" else (student, teacher)
    if members_of(model):
        _check_members(model, x)
        return
    if pair.teacher is pair.student:
        _check_takes_structure(model, x)
    if fits(model, x) is not False:
        return
    if not fits(other, x):
        hint = f'Pass the {role}\'s modality as x["{role}"].'
    elif pair.teacher is pair.student:
        hint = (
            f"It is the modality of {other.name!r} alone. Training takes both, "
            'x={"teacher": ..., "student": ...}; evaluate and predict take the '
            "student's."
        )
    else:
        hint = (
            f"It does fit the other model, {other.name!r}: are "
            '"teacher" and "student" swapped?'
        )
    raise ValueError(f"{_misfit(role, model, x)} {hint}")


def _check_members(teachers: Any, x: Nested) -> None:
    """Raises `ValueError` if the input of one of several teachers does not fit it."""
    inputs = teachers.inputs_of_members(x)
    for (key, member), own in zip(teachers.members.items(), inputs, strict=True):
        if fits(member, own) is False:
            raise ValueError(
                f'{_misfit(f"teacher {key!r},", member, own)} Pass x["teacher"] as '
                f"a dict with the keys {list(teachers.members)}, or as one input that "
                "fits all of them."
            )


def check_fits(model: keras.Model, x: Nested) -> None:
    """Raises `ValueError` if the shapes of an input do not fit a single model."""
    if fits(model, x) is False:
        raise ValueError(_misfit("model", model, x))


def _misfit(what: str, model: keras.Model, x: Nested) -> str:
    expected = [tuple(spec.shape) for spec in model.inputs]
    received = [tuple(array.shape) for array in keras.tree.flatten(x)]
    return (
        f"The input does not fit the {what} {model.name!r}. Expected shape: "
        f"{_one_or_all(expected)}. Received: x.shape={_one_or_all(received)}."
    )


def _check_takes_structure(model: keras.Model, x: Nested) -> None:
    """Raises `ValueError` if a model with one input receives several."""
    takes = input_of(model)
    if takes is None or keras.tree.is_nested(takes) or not keras.tree.is_nested(x):
        return
    if len(x) < 2 or (isinstance(x, dict) and takes.name in x):
        return
    what = f"the keys {sorted(x)}" if isinstance(x, dict) else f"{len(x)} of them"
    raise ValueError(
        f"{model.name!r} takes one input. Received: {what}. Training takes both "
        'modalities as x={"teacher": ..., "student": ...}; evaluate and predict take '
        "the student's."
    )


def _one_or_all(shapes: list[Shape]) -> Shape | list[Shape]:
    return shapes[0] if len(shapes) == 1 else shapes


def fits(model: keras.Model, x: Nested) -> bool | None:
    """Whether an input's shapes fit the model; `None` if only a call can tell."""
    specs = getattr(model, "inputs", None)
    arrays = keras.tree.flatten(x)
    if not specs or len(specs) != len(arrays):
        return None
    if keras.tree.is_nested(x) != keras.tree.is_nested(input_of(model)) or isinstance(
        x, dict
    ) != isinstance(input_of(model), dict):
        return None  # Keras matches by structure, and by the names of the inputs.
    if not all(hasattr(array, "shape") for array in arrays):
        return None  # A data set: its batches are not known yet.
    return all(
        # The batch size may be anything.
        _accepts(tuple(spec.shape)[1:], tuple(array.shape)[1:])
        and len(array.shape) >= 1
        for spec, array in zip(specs, arrays, strict=True)
    )


def _accepts(expected: Shape, shape: Shape) -> bool:
    """Whether an input accepts a sample; Keras adds or removes a last axis of 1."""
    return (
        is_same_shape(expected, shape)
        or (shape[-1:] == (1,) and is_same_shape(expected, shape[:-1]))
        or (expected[-1:] == (1,) and is_same_shape(expected[:-1], shape))
    )
