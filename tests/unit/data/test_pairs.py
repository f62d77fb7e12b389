"""One batch, two modalities: which is whose."""

import keras
import numpy as np
import pytest
from small_models import Subclassed, mlp, rows

from keras_dskd.data import pairs


def test_a_paired_dict_is_split_by_modality():
    teacher, student = rows(2, 6), rows(2, 4)
    pair = pairs.split({"teacher": teacher, "student": student})
    assert pair.teacher is teacher
    assert pair.student is student
    assert pair.teacher_features is None


def test_cached_features_stand_in_for_the_teachers_input():
    features = {"gap": rows(2, 3)}
    pair = pairs.split({"teacher_features": features, "student": rows(2, 4)})
    assert pair.teacher is None
    assert pair.teacher_features is features


@pytest.mark.parametrize(
    "x",
    [rows(2, 4), [rows(2, 4), rows(2, 3)], {"height": rows(2, 1), "width": rows(2, 1)}],
    ids=["array", "list", "dict of other keys"],
)
def test_anything_else_goes_to_both(x):
    pair = pairs.split(x)
    assert pair.teacher is x
    assert pair.student is x
    assert pair.teacher_features is None
    assert not pairs.is_pair(x)


def test_the_students_input_alone_is_a_pair():
    x = {"student": rows(2, 4)}
    assert pairs.is_pair(x)
    assert pairs.split(x).teacher is None


def test_each_modality_keeps_its_structure():
    teacher = {"radar": rows(2, 3), "lidar": [rows(2, 2), rows(2, 1)]}
    pair = pairs.split({"teacher": teacher, "student": (rows(2, 4),)})
    assert pair.teacher is teacher
    assert isinstance(pair.student, tuple)


def test_a_missing_student_raises():
    with pytest.raises(ValueError, match=r'needs the key "student".*\[\'teacher\'\]'):
        pairs.split({"teacher": rows(2, 6)})


def test_an_unknown_key_raises():
    x = {"teacher": rows(2, 6), "student": rows(2, 4), "depth": rows(2, 1)}
    with pytest.raises(ValueError, match=r"unknown keys: \['depth'\]"):
        pairs.split(x)


# What fits a model


def check(x, model=None, other=None):
    pair = pairs.Pair(teacher=rows(2, 6), student=x, teacher_features=None)
    pairs.check_input("student", pair, other or mlp(6, name="teacher"), model or mlp(4))


def functional(*shapes, dtype=None):
    inputs = [keras.Input(shape, dtype=dtype) for shape in shapes]
    outputs = [keras.layers.Flatten()(one) for one in inputs]
    return keras.Model(inputs, outputs, name="student")


def test_a_fitting_input_passes_whatever_the_batch_size():
    for n in (1, 7):
        assert check(rows(n, 4)) is None


def test_an_input_of_any_size_passes_where_the_model_takes_any():
    assert check(np.zeros((2, 9, 5, 3)), functional((None, None, 3))) is None


def test_the_axis_of_length_one_that_keras_adds_or_takes_off_passes():
    assert check(np.zeros((2, 8, 8)), functional((8, 8, 1))) is None
    assert check(np.zeros((2, 4, 1))) is None
    assert check(np.zeros((2, 1, 1)), functional((1,))) is None


def test_what_only_a_call_can_tell_passes():
    """Models that do not say what they take, and structures of another size."""
    assert check(rows(2, 9), Subclassed()) is None
    assert check([rows(2, 9)], functional((2,), (3,))) is None


def test_a_wrong_width_raises_with_both_shapes():
    expected = (
        r"does not fit the student 'student'. Expected shape: \(None, 4\). "
        r'Received: x.shape=\(2, 5\). Pass the student\'s modality as x\["student"\]'
    )
    with pytest.raises(ValueError, match=expected):
        check(rows(2, 5))


def test_a_wrong_rank_raises():
    with pytest.raises(ValueError, match=r"Received: x.shape=\(2, 3, 4\)"):
        check(np.zeros((2, 3, 4)))


def test_one_of_several_inputs_that_does_not_fit_raises_with_all_shapes():
    expected = (
        r"Expected shape: \[\(None, 2\), \(None, 3\)\]. "
        r"Received: x.shape=\[\(2, 2\), \(2, 9\)\]"
    )
    with pytest.raises(ValueError, match=expected):
        check([rows(2, 2), rows(2, 9)], functional((2,), (3,)))


def test_the_other_models_input_is_recognised():
    with pytest.raises(ValueError, match='are "teacher" and "student" swapped'):
        check(rows(2, 6))


def test_one_modality_alone_in_training_is_recognised():
    """What is not paired goes to both models, and here fits the student alone."""
    pair = pairs.split(rows(2, 4))
    expected = r"modality of 'student' alone. Training takes both, x=\{\"teacher\""
    with pytest.raises(ValueError, match=expected):
        pairs.check_input("teacher", pair, mlp(6, name="teacher"), mlp(4))
