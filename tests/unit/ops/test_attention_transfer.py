"""Distance between attention maps."""

import numpy as np
import pytest
import reference
from gradients import value, value_and_gradient

from keras_dskd import ops

TEACHER, STUDENT = reference.samples(3, 2, 4, 5), reference.samples(3, 2, 4, 2, seed=1)


def test_value_by_hand():
    # Attention 9, 16 has length sqrt(337); 1, 0 has 1: 2 - 2 · 9 / sqrt(337).
    teacher = np.array([[[3.0], [4.0]]])
    student = np.array([[[-1.0], [0.0]]])
    actual = value(ops.attention_transfer, teacher, student)
    np.testing.assert_allclose(actual, 2 - 18 / np.sqrt(337), rtol=1e-6)


@pytest.mark.parametrize("finer", ["teacher", "student"])
def test_the_finer_attention_is_averaged_over_blocks(finer):
    coarse = reference.samples(3, 2, 2, 4)
    fine = reference.samples(3, 4, 6, 5, seed=1)
    attention = (fine**2).mean(axis=-1, keepdims=True)
    blocks = attention.reshape(3, 2, 2, 2, 3, 1).mean(axis=(2, 4))
    expected = reference.attention_transfer(coarse, np.sqrt(blocks))

    pair = (fine, coarse) if finer == "teacher" else (coarse, fine)

    np.testing.assert_allclose(
        value(ops.attention_transfer, *pair), expected, rtol=1e-5
    )


def test_maps_of_zeros_and_large_features_are_finite():
    teacher = 1e25 * TEACHER
    student = np.zeros_like(STUDENT)
    actual, gradients = value_and_gradient(ops.attention_transfer, teacher, student)
    np.testing.assert_allclose(actual, 1.0, rtol=1e-5)
    assert np.isfinite(gradients[1]).all()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 4), r"feature map.*student_map.shape=\(3, 4\)"),
        ((3, 3, 4, 2), r"\(2, 4\) positions from the teacher and \(3, 4\)"),
        ((3, 8, 2), r"\(2, 4\) positions from the teacher and \(8,\)"),
    ],
)
def test_grids_that_do_not_fit_raise(shape, message):
    with pytest.raises(ValueError, match=message):
        ops.attention_transfer(TEACHER, np.ones(shape))


def test_other_samples_raise():
    with pytest.raises(ValueError, match="must come from the same samples"):
        ops.attention_transfer(TEACHER, STUDENT[:1])
