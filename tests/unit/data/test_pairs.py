"""One batch, two modalities: which model receives which."""

import keras
import numpy as np
import pytest
from small_models import Subclassed, mlp, rows

from keras_dskd.data import pairs


def test_paired_dict_is_split_by_modality():
    teacher, student = rows(2, 6), rows(2, 4)
    pair = pairs.split({"teacher": teacher, "student": student})
    assert pair.teacher is teacher
    assert pair.student is student
    assert pair.teacher_features is None


def test_cached_features_replace_the_teachers_input():
    features = {"gap": rows(2, 3)}
    pair = pairs.split({"teacher_features": features, "student": rows(2, 4)})
    assert pair.teacher is None
    assert pair.teacher_features is features


@pytest.mark.parametrize(
    "x",
    [rows(2, 4), [rows(2, 4), rows(2, 3)], {"height": rows(2, 1), "width": rows(2, 1)}],
    ids=["array", "list", "dict of other keys"],
)
def test_other_inputs_go_to_both_models(x):
    pair = pairs.split(x)
    assert pair.teacher is x
    assert pair.student is x
    assert pair.teacher_features is None
    assert not pairs.is_pair(x)


def test_students_input_alone_is_a_pair():
    x = {"student": rows(2, 4)}
    assert pairs.is_pair(x)
    assert pairs.split(x).teacher is None


def test_each_modality_keeps_its_structure():
    teacher = {"radar": rows(2, 3), "lidar": [rows(2, 2), rows(2, 1)]}
    pair = pairs.split({"teacher": teacher, "student": (rows(2, 4),)})
    assert pair.teacher is teacher
    assert isinstance(pair.student, tuple)


def test_missing_student_raises():
    with pytest.raises(ValueError, match=r'needs the key "student".*\[\'teacher\'\]'):
        pairs.split({"teacher": rows(2, 6)})


def test_unknown_key_raises():
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


def test_fitting_input_passes_with_any_batch_size():
    for n in (1, 7):
        assert check(rows(n, 4)) is None


def test_unknown_axes_of_the_model_accept_any_size():
    assert check(np.zeros((2, 9, 5, 3)), functional((None, None, 3))) is None


def test_last_axis_of_length_one_may_be_added_or_removed():
    assert check(np.zeros((2, 8, 8)), functional((8, 8, 1))) is None
    assert check(np.zeros((2, 4, 1))) is None
    assert check(np.zeros((2, 1, 1)), functional((1,))) is None


def test_inputs_that_only_a_call_can_check_pass():
    """Models without declared inputs, and structures of another size."""
    assert check(rows(2, 9), Subclassed()) is None
    assert check([rows(2, 9)], functional((2,), (3,))) is None


def test_wrong_width_raises_with_both_shapes():
    expected = (
        r"does not fit the student 'student'. Expected shape: \(None, 4\). "
        r'Received: x.shape=\(2, 5\). Pass the student\'s modality as x\["student"\]'
    )
    with pytest.raises(ValueError, match=expected):
        check(rows(2, 5))


def test_wrong_rank_raises():
    with pytest.raises(ValueError, match=r"Received: x.shape=\(2, 3, 4\)"):
        check(np.zeros((2, 3, 4)))


def test_misfit_among_several_inputs_raises_with_all_shapes():
    expected = (
        r"Expected shape: \[\(None, 2\), \(None, 3\)\]. "
        r"Received: x.shape=\[\(2, 2\), \(2, 9\)\]"
    )
    with pytest.raises(ValueError, match=expected):
        check([rows(2, 2), rows(2, 9)], functional((2,), (3,)))


def test_swapped_inputs_are_recognized():
    with pytest.raises(ValueError, match='are "teacher" and "student" swapped'):
        check(rows(2, 6))


def test_single_modality_in_training_is_recognized():
    """A plain array goes to both models. This one fits only the student."""
    pair = pairs.split(rows(2, 4))
    expected = r"modality of 'student' alone. Training takes both, x=\{\"teacher\""
    with pytest.raises(ValueError, match=expected):
        pairs.check_input("teacher", pair, mlp(6, name="teacher"), mlp(4))
