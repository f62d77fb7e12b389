"""The number of dimensions that rows effectively use."""

import keras
import numpy as np
import pytest
import reference
from gradients import (
    assert_gradient_close,
    compiled_on_jax,
    value,
    value_and_gradient,
)

from keras_dskd import ops

# Errors of the singular values of small float32 matrices: about 1e-6 of the largest.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
RANKS = ["effective_rank", "centered_effective_rank"]


@pytest.mark.parametrize("name", RANKS)
@pytest.mark.parametrize("shape", [(2, 3), (5, 5), (4, 9), (32, 3)])
def test_rank_matches_the_reference(name, shape):
    x = reference.samples(*shape) + 0.5

    actual = value(getattr(ops, name), x)

    np.testing.assert_allclose(actual, getattr(reference, name)(x), **TOLERANCE)


def test_rank_of_a_diagonal_matrix_by_hand():
    # Singular values 3 and 1, p = 3/4 and 1/4:
    # exp(-(0.75 log 0.75 + 0.25 log 0.25)) = exp(0.215762 + 0.346574) = 1.754765
    x = np.array([[3.0, 0.0], [0.0, -1.0]])

    np.testing.assert_allclose(value(ops.effective_rank, x), 1.754765, rtol=1e-5)


def test_centered_rank_of_three_rows_by_hand():
    # Subtract the mean (1, 2): (-3, 0), (3, 0), (0, 1), (0, -1). Singular values
    # sqrt(18) and sqrt(2), p = 3/4 and 1/4 as above.
    x = np.array([[-2.0, 2.0], [4.0, 2.0], [1.0, 3.0], [1.0, 1.0]])

    actual = value(ops.centered_effective_rank, x)

    np.testing.assert_allclose(actual, 1.754765, rtol=1e-5)


def test_rank_runs_from_one_direction_to_all():
    one = np.outer(reference.samples(6), reference.samples(4, seed=1))
    every = np.linalg.qr(reference.samples(6, 4))[0]

    # Each vanishing p of 1e-7 adds 1.6e-6 to the entropy; float32 adds noise.
    np.testing.assert_allclose(value(ops.effective_rank, one), 1.0, atol=1e-4)
    np.testing.assert_allclose(value(ops.effective_rank, every), 4.0, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e18, 100.0, 1e-18])
@pytest.mark.parametrize("name", RANKS)
def test_scale_does_not_matter(name, scale):
    x = (scale * reference.samples(6, 4)).astype("float32")

    actual = value(getattr(ops, name), x)

    np.testing.assert_allclose(actual, getattr(reference, name)(x), **TOLERANCE)


def test_rotation_and_order_of_rows_do_not_matter():
    x = reference.samples(6, 4)
    rotation, _ = np.linalg.qr(reference.samples(4, 4, seed=1))

    np.testing.assert_allclose(
        value(ops.effective_rank, (x @ rotation)[::-1].copy()),
        value(ops.effective_rank, x),
        **TOLERANCE,
    )


def test_shift_changes_only_the_uncentered_rank():
    x = reference.samples(6, 4)
    shifted = x + 10.0

    assert value(ops.effective_rank, shifted) < value(ops.effective_rank, x) - 1.0
    np.testing.assert_allclose(
        value(ops.centered_effective_rank, shifted),
        value(ops.centered_effective_rank, x),
        **TOLERANCE,
    )


@pytest.mark.parametrize("name", RANKS)
@pytest.mark.parametrize("shape", [(5, 3), (3, 5)])
@pytest.mark.parametrize("compiled", [False, True])
def test_gradient_matches_finite_differences(name, shape, compiled):
    if name == "centered_effective_rank" and shape == (3, 5):
        pytest.skip("three centred rows have a singular value of 0: no derivative")
    x = reference.samples(*shape)

    _, (gradient,) = value_and_gradient(getattr(ops, name), x, compiled=compiled)

    expected = reference.finite_difference(getattr(reference, name), x)
    assert_gradient_close(gradient, expected)


@pytest.mark.parametrize("name", RANKS)
@pytest.mark.parametrize(
    ("case", "rank"),
    [("zeros", 1.0), ("identical rows", 1.0), ("equal singular values", None)],
)
def test_degenerate_rows_have_a_finite_value_and_gradient(name, case, rank):
    if case == "zeros":
        x = np.zeros((5, 3))
    elif case == "identical rows":
        x = np.full((5, 3), 0.25)  # exact means, so that the centered rows are 0
    else:
        x = np.concatenate([np.eye(3), -np.eye(3)])  # all singular values are sqrt(2)
        rank = 3.0

    actual, (gradient,) = value_and_gradient(getattr(ops, name), x)

    # Each vanishing p of 1e-7 adds 1.6e-6 to the entropy.
    np.testing.assert_allclose(actual, rank, rtol=1e-4)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", RANKS)
@pytest.mark.parametrize("scale", [1e18, 1e-18])
def test_gradient_of_extreme_rows_matches_finite_differences(name, scale):
    x = (scale * reference.samples(5, 3)).astype("float32")

    _, (gradient,) = value_and_gradient(getattr(ops, name), x)

    expected = reference.finite_difference(
        getattr(reference, name), x, step=1e-6 * scale
    )
    # The gradient scales as 1 / scale.
    assert_gradient_close(scale * gradient, scale * expected)


@pytest.mark.parametrize("name", RANKS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_equals_the_reference_of_the_rounded_rows(name, dtype):
    x = keras.ops.cast(1e4 * reference.samples(6, 4), dtype)

    actual = compiled_on_jax(getattr(ops, name))(x)

    assert keras.backend.standardize_dtype(actual.dtype) == "float32"
    rounded = keras.ops.convert_to_numpy(keras.ops.cast(x, "float32"))
    expected = getattr(reference, name)(rounded)
    np.testing.assert_allclose(float(actual), expected, **TOLERANCE)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="unknown sizes are TensorFlow's"
)
@pytest.mark.parametrize("name", RANKS)
def test_batch_of_one_found_at_run_time_has_rank_one(name):
    actual, (gradient,) = value_and_gradient(
        getattr(ops, name), reference.samples(1, 4), compiled=True
    )

    np.testing.assert_allclose(actual, 1.0, rtol=1e-5)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", RANKS)
@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_rows_raise(name, n):
    with pytest.raises(ValueError, match=rf"2 rows.*rows.shape=\({n}, 3\)"):
        getattr(ops, name)(np.zeros((n, 3), "float32"))


@pytest.mark.parametrize("name", RANKS)
@pytest.mark.parametrize("shape", [(4,), (4, 2, 3)])
def test_wrong_rank_raises(name, shape):
    with pytest.raises(ValueError, match=r"shape \(n, c\).*keras_dskd.ops.rows"):
        getattr(ops, name)(reference.samples(*shape))
