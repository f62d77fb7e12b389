"""Formulas with a mask of rows: the same as without these rows."""

import keras
import numpy as np
import pytest
import reference
from gradients import value_and_gradient

from keras_dskd import ops

N = 8
MASK = np.array([1, 0, 1, 1, 0, 1, 1, 0], bool)


@pytest.mark.parametrize("name", ["channel_alignment", "cross_off_diagonal_energy"])
def test_a_masked_formula_equals_that_of_the_remaining_rows(name):
    teacher, student = reference.samples(N, 5), reference.samples(N, 5, seed=1)
    spoiled = np.where(MASK[:, None], teacher, np.nan)

    value, (gradient,) = value_and_gradient(
        lambda rows: getattr(ops, name)(spoiled, rows, mask=MASK), student
    )

    formula = getattr(reference, name)
    np.testing.assert_allclose(value, formula(teacher[MASK], student[MASK]), rtol=1e-5)
    expected = reference.finite_difference(
        lambda rows: formula(teacher[MASK], rows[MASK]), student
    )
    # Gradients of order 0.1 in float32.
    np.testing.assert_allclose(gradient, expected, atol=1e-5)


def test_masked_correlation_equals_that_of_the_remaining_rows():
    teacher, student = reference.samples(N, 5), reference.samples(N, 3, seed=1)
    received = ops.cross_correlation(teacher, student, mask=MASK)
    expected = reference.cross_correlation(teacher[MASK], student[MASK])
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(received), expected, atol=1e-6
    )


def test_masked_rows_standardize_to_zero():
    rows = reference.samples(N, 3)
    received = keras.ops.convert_to_numpy(ops.standardize(rows, mask=MASK))
    np.testing.assert_allclose(
        received[MASK], reference.standardize(rows[MASK]), rtol=1e-5, atol=1e-6
    )
    assert not received[~MASK].any()


def test_a_mask_of_another_length_raises():
    with pytest.raises(ValueError, match="one row per sample. Received: feature.shape"):
        ops.standardize(reference.samples(2 * N, 3), mask=MASK)
