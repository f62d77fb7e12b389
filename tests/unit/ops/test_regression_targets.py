"""Regression targets: plain, and bounded by the teacher's error."""

import numpy as np
import pytest
import reference
from gradients import value, value_and_gradient

from keras_dskd import ops


def test_value_and_gradient_by_hand():
    teacher, student = np.array([[1.0, 2.0]]), np.array([[3.0, 1.0]])
    actual, gradients = value_and_gradient(ops.regression_targets, teacher, student)
    assert actual == 2.5  # (4 + 1) / 2
    np.testing.assert_allclose(gradients[1], [[2.0, -1.0]])


BOUNDED = {
    # Errors of the teacher: 1, 4, 1. Of the student: 4, 1, 1.
    "teacher": np.array([1.0, 2.0, 1.0]),
    "student": np.array([2.0, 1.0, -1.0]),
    "labels": np.zeros(3),
}


@pytest.mark.parametrize(
    ("margin", "expected", "gradient"),
    [
        (0.0, 4 / 3, [4 / 3, 0.0, 0.0]),  # Equal errors are not worse.
        (0.5, 5 / 3, [4 / 3, 0.0, -2 / 3]),
        (3.0, 5 / 3, [4 / 3, 0.0, -2 / 3]),
        (3.1, 2.0, [4 / 3, 2 / 3, -2 / 3]),
    ],
)
@pytest.mark.parametrize("columns", [(), ("student",), ("labels",), ("teacher",)])
def test_bounded_value_and_gradient_by_hand(columns, margin, expected, gradient):
    """Outputs and labels `(n,)` and `(n, 1)` match, without a matrix `(n, n)`."""
    given = {k: v[:, None] if k in columns else v for k, v in BOUNDED.items()}
    actual, gradients = value_and_gradient(
        lambda t, s: ops.bounded_regression(t, s, given["labels"], margin),
        given["teacher"],
        given["student"],
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
    np.testing.assert_allclose(gradients[1].ravel(), gradient, rtol=1e-6)
    np.testing.assert_array_equal(gradients[0], 0.0)


def test_bounded_compares_errors_of_each_position():
    teacher, student = reference.samples(2, 3, 4), reference.samples(2, 3, 4, seed=1)
    labels = reference.samples(2, 3, 4, seed=2)
    weight = np.array([[1.0, 0.0, 2.0], [0.5, 1.0, 1.0]], "float32")
    each = [
        reference.bounded_regression(*(x[i][None] for x in (teacher, student, labels)))
        for i in np.ndindex(2, 3)
    ]
    actual = value(
        lambda t, s: ops.bounded_regression(t, s, labels, sample_weight=weight),
        teacher,
        student,
    )
    np.testing.assert_allclose(actual, np.mean(weight.ravel() * each), rtol=1e-5)


def test_a_vector_and_a_column_are_compared_sample_by_sample():
    teacher, student = reference.samples(7), reference.samples(7, seed=1)
    expected = reference.regression_targets(teacher, student)
    for pair in [(teacher, student[:, None]), (teacher[:, None], student)]:
        actual = value(ops.regression_targets, *pair)
        np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_large_values_keep_their_squares():
    teacher, student = 1e5 * reference.samples(4, 3), np.zeros((4, 3))
    actual, gradients = value_and_gradient(ops.regression_targets, teacher, student)
    expected = reference.regression_targets(teacher, student)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    np.testing.assert_allclose(gradients[1], -2 * teacher / 12, rtol=1e-5)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "labels=None. Pass `y`"),
        ({"a": np.ones(5), "b": np.ones(5)}, "Received: a dict of 2"),
        (np.ones((5, 2)), r"same shape .* labels.shape=\(5, 2\)"),
        (np.ones(4), r"same shape .* labels.shape=\(4,\)"),
    ],
)
def test_labels_that_do_not_fit_raise(labels, message):
    with pytest.raises(ValueError, match=message):
        ops.bounded_regression(np.zeros((5, 1)), np.ones((5, 1)), labels)


@pytest.mark.parametrize("shape", [(5, 3), (1, 5), (4, 1)])
def test_other_shapes_raise(shape):
    with pytest.raises(ValueError, match=r"teacher_outputs.shape=\(5,\)"):
        ops.regression_targets(np.zeros(5), np.zeros(shape))
