"""Hard targets: cross-entropy with the teacher's most likely class."""

import numpy as np
import pytest
import reference
from gradients import value, value_and_gradient

from keras_dskd import ops


def test_value_and_gradient_by_hand():
    # The student gives 1/4 to the teacher's class: -log(1/4), gradient q - onehot.
    teacher, student = np.array([[0.1, 2.0, 1.9]]), np.log([[0.5, 0.25, 0.25]])
    actual, gradients = value_and_gradient(ops.hard_targets, teacher, student)
    np.testing.assert_allclose(actual, 1.386294, rtol=1e-6)
    np.testing.assert_allclose(gradients[1], [[0.5, -0.75, 0.25]], rtol=1e-5)
    np.testing.assert_array_equal(gradients[0], 0.0)


def test_logits_and_probabilities_of_the_teacher_give_the_same():
    teacher, student = reference.samples(6, 4), reference.samples(6, 4, seed=1)
    assert value(ops.hard_targets, teacher, student) == value(
        ops.hard_targets, reference.softmax(teacher), student
    )


def test_saturated_logits_have_a_finite_value_and_gradient():
    teacher, student = np.array([[80.0, -80.0]]), np.array([[-80.0, 80.0]])
    actual, gradients = value_and_gradient(ops.hard_targets, teacher, student)
    np.testing.assert_allclose(actual, 160.0, rtol=1e-6)
    np.testing.assert_allclose(gradients[1], [[-1.0, 1.0]], atol=1e-6)


@pytest.mark.parametrize("name", ["hard_targets", "soft_targets"])
def test_weights_line_up_with_the_axes_without_the_classes(name):
    teacher, student = (
        reference.samples(3, 4, 2, 5),
        reference.samples(3, 4, 2, 5)[::-1],
    )
    weight = np.abs(reference.samples(3, 2, 5, seed=2)).astype("float32")
    formula, expected = getattr(ops, name), getattr(reference, name)
    each = [
        expected(teacher[b, :, i, j][None], student[b, :, i, j][None])
        for b, i, j in np.ndindex(3, 2, 5)
    ]
    actual = value(
        lambda t, s: formula(t, s, sample_weight=weight, axis=1),
        teacher,
        student,
    )
    np.testing.assert_allclose(actual, np.mean(weight.ravel() * each), rtol=1e-5)


@pytest.mark.parametrize("name", ["hard_targets", "soft_targets"])
@pytest.mark.parametrize("axis", [3, -3, 0, "1", 1.0])
def test_an_axis_that_is_not_there_raises(name, axis):
    logits = reference.samples(3, 4, 5)
    with pytest.raises(ValueError, match=f"axis={axis!r}"):
        getattr(ops, name)(logits, logits, axis=axis)


def test_a_single_class_along_the_axis_raises():
    logits = reference.samples(3, 1, 5)
    with pytest.raises(ValueError, match="at least 2 classes"):
        ops.soft_targets(logits, logits, axis=1)
