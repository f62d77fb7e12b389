"""Relations between samples."""

import numpy as np
import pytest
import reference
from gradients import assert_gradient_close, value, value_and_gradient

from keras_dskd import ops

TEACHER, STUDENT = reference.samples(5, 3), reference.samples(5, 4, seed=1)
FORMULAS = ["relational_distance", "relational_angle"]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("formula", FORMULAS)
def test_value_and_gradient_match_the_reference_at_different_widths(formula, compiled):
    actual, gradients = value_and_gradient(
        getattr(ops, formula), TEACHER, STUDENT, compiled=compiled
    )

    def of(student):
        return getattr(reference, formula)(TEACHER, student)

    np.testing.assert_allclose(actual, of(STUDENT), rtol=1e-5)
    assert_gradient_close(gradients[1], reference.finite_difference(of, STUDENT))


def test_distance_by_hand():
    # Distances 3, 4, 5 with mean 4, against three equal distances: two of the three
    # pairs contribute 0.25² / 2.
    teacher = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    student = np.eye(3)
    actual = value(ops.relational_distance, teacher, student)
    np.testing.assert_allclose(actual, 2 / 3 * 0.25**2 / 2, rtol=1e-5)


def test_angle_by_hand():
    # Cosines 0, 0.6, 0.8 of a right triangle, against 0.5 in an equilateral one.
    teacher = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    student = np.eye(3)
    actual = value(ops.relational_angle, teacher, student)
    expected = (0.5**2 + 0.1**2 + 0.3**2) / 2 / 3
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize("formula", FORMULAS)
def test_scale_shift_and_rotation_do_not_matter(formula):
    turn = np.linalg.qr(reference.samples(3, 3, seed=2))[0]
    actual = value(getattr(ops, formula), TEACHER, 1e12 * (TEACHER + 1) @ turn)
    np.testing.assert_allclose(actual, 0.0, atol=1e-6)


def test_two_rows_form_no_angle():
    with pytest.raises(ValueError, match=r"at least 3 rows.*\(2, 4\)"):
        ops.relational_angle(TEACHER[:2], STUDENT[:2])


@pytest.mark.parametrize("formula", FORMULAS)
def test_features_far_from_zero_keep_their_precision(formula):
    """Products of rows, or rows divided by the largest value, would lose digits."""
    far = [(x + 1e4).astype("float32") for x in (TEACHER, STUDENT)]
    exact = [x.astype("float64") for x in far]

    actual, gradients = value_and_gradient(getattr(ops, formula), *far)

    def of(student):
        return getattr(reference, formula)(exact[0], student)

    np.testing.assert_allclose(actual, of(exact[1]), rtol=1e-5)
    expected = reference.finite_difference(of, exact[1], step=1e-4)
    assert_gradient_close(gradients[1], expected)
