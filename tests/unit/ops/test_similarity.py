"""Similarities between samples."""

import numpy as np
import pytest
import reference
from gradients import value

from keras_dskd import ops

TEACHER, STUDENT = reference.samples(5, 3), reference.samples(5, 4, seed=1)
FORMULAS = ["similarity_preserving", "centered_kernel_alignment"]


def test_similarity_preserving_by_hand():
    # Products [[1, 1], [1, 1]] / sqrt(2) against the identity.
    actual = value(ops.similarity_preserving, np.ones((2, 1)), np.eye(2))
    half = np.sqrt(0.5)
    np.testing.assert_allclose(actual, 2 * ((1 - half) ** 2 + half**2) / 4, rtol=1e-6)


def test_kernel_alignment_by_hand():
    # Centered, the teacher is (1, -1, 0) and (0, 0, 0) plus (1, 1, -2): the product of
    # (1, -1, 0) with itself, against both: <K_t, K_s> = 4, norms 2 and sqrt(4 + 36).
    student = np.array([[1.0, 1.0], [-1.0, 1.0], [0.0, -2.0]])
    actual = value(ops.centered_kernel_alignment, student[:, :1] + 7, student)
    np.testing.assert_allclose(actual, 4 / (2 * np.sqrt(40)), rtol=1e-5)


@pytest.mark.parametrize(
    ("formula", "alike"), list(zip(FORMULAS, [0.0, 1.0], strict=True))
)
def test_scale_and_rotation_do_not_matter(formula, alike):
    turn = np.linalg.qr(reference.samples(3, 3, seed=2))[0]
    actual = value(getattr(ops, formula), TEACHER, 1e25 * TEACHER @ turn)
    np.testing.assert_allclose(actual, alike, atol=1e-6)
