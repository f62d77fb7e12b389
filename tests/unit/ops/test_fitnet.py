"""Distance between standardized features."""

import numpy as np
import reference
from gradients import value, value_and_gradient

from keras_dskd import ops

TEACHER, STUDENT = reference.samples(7, 3), reference.samples(7, 3, seed=1)


def test_value_by_hand():
    # Standardized to ±1: equal channels differ by 0, opposite ones by 2.
    teacher = np.array([[1.0, 5.0], [-1.0, -5.0]])
    student = np.array([[7.0, -1.0], [3.0, 1.0]])
    actual = value(
        lambda t, s: ops.standardized_distance(t, s, 1e-12), teacher, student
    )
    np.testing.assert_allclose(actual, 2.0, rtol=1e-6)


def test_distance_is_twice_one_minus_the_mean_correlation():
    actual = value(ops.standardized_distance, TEACHER, STUDENT)
    diagonal = np.diagonal(reference.cross_correlation(TEACHER, STUDENT))
    # The tolerance covers epsilon / variance = 1e-5.
    np.testing.assert_allclose(actual, 2 * (1 - diagonal.mean()), rtol=1e-4)


def test_alignment_is_the_squared_half_distance_near_agreement():
    # One channel: (1 - C)² against 2 (1 - C).
    teacher, student = TEACHER[:, :1], TEACHER[:, :1] + 0.1 * STUDENT[:, :1]
    distance = value(ops.standardized_distance, teacher, student)
    alignment = value(ops.channel_alignment, teacher, student)
    np.testing.assert_allclose(alignment, (distance / 2) ** 2, rtol=1e-2)


def test_constant_channels_have_a_finite_gradient():
    actual, gradients = value_and_gradient(
        ops.standardized_distance, TEACHER, np.ones((7, 3))
    )
    np.testing.assert_allclose(actual, 1.0, rtol=1e-4)  # mean z_t² is 1
    assert all(np.isfinite(gradient).all() for gradient in gradients)
