"""How evenly rows are spread over the unit sphere."""

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

# Squared distances of unit rows are exact to about 1e-7 and are multiplied by t.
TOLERANCE = {"rtol": 1e-5, "atol": 2e-6}


@pytest.mark.parametrize("shape", [(2, 1), (2, 3), (5, 5), (4, 17), (70, 3)])
def test_uniformity_at_temperature_two_matches_the_reference(shape):
    x = reference.samples(*shape)

    actual = value(ops.spatial_uniformity, x)

    expected = reference.spatial_uniformity(x, temperature=2.0)
    np.testing.assert_allclose(actual, expected, **TOLERANCE)


def test_uniformity_of_two_rows_by_hand():
    # At right angles on the unit circle: ||u_1 - u_2||² = 2, log exp(-2 · 2) = -4.
    x = np.array([[3.0, 0.0], [0.0, 0.5]])

    np.testing.assert_allclose(value(ops.spatial_uniformity, x), -4.0, rtol=1e-6)


def test_uniformity_of_three_rows_by_hand():
    # Squared distances 2 (right angle), 2 (right angle), 4 (opposite), t = 0.5:
    # log((e^-1 + e^-1 + e^-2) / 3) = log(0.8710941656 / 3)
    x = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])

    actual = value(lambda x: ops.spatial_uniformity(x, temperature=0.5), x)

    np.testing.assert_allclose(actual, -1.2366174, rtol=1e-6)


@pytest.mark.parametrize(
    ("second", "expected"), [([2.0, 2.0], 0.0), ([-1.0, -1.0], -8.0)]
)
def test_uniformity_runs_from_identical_to_opposite(second, expected):
    x = np.array([[1.0, 1.0], second])

    # 0, or -4 t for t = 2
    np.testing.assert_allclose(
        value(ops.spatial_uniformity, x), expected, rtol=1e-6, atol=1e-6
    )


def test_row_of_zeros_stays_at_the_origin():
    # Distance 1 from every unit row: -t = -2.
    x = np.array([[0.0, 0.0], [5.0, 0.0]])

    np.testing.assert_allclose(value(ops.spatial_uniformity, x), -2.0, rtol=1e-6)


def test_rotation_does_not_matter():
    x = reference.samples(7, 4)
    rotation, _ = np.linalg.qr(reference.samples(4, 4, seed=1))

    np.testing.assert_allclose(
        value(ops.spatial_uniformity, x @ rotation),
        value(ops.spatial_uniformity, x),
        **TOLERANCE,
    )


def test_length_and_order_of_rows_do_not_matter():
    x = reference.samples(7, 4)
    moved = (x * [[0.1], [1.0], [7.0], [1e3], [1e-3], [2.0], [0.3]])[::-1].copy()

    np.testing.assert_allclose(
        value(ops.spatial_uniformity, moved),
        value(ops.spatial_uniformity, x),
        **TOLERANCE,
    )


def test_even_spread_is_lower_than_a_cluster():
    angles = np.linspace(0.0, 2.0 * np.pi, 8, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    cluster = np.stack([np.cos(angles / 8), np.sin(angles / 8)], axis=1)

    even, clustered = (value(ops.spatial_uniformity, x) for x in (circle, cluster))

    assert even < clustered - 0.5


@pytest.mark.parametrize("shape", [(7, 4), (5, 9)])
@pytest.mark.parametrize("scale", [1e18, 1.0, 1e-18])
@pytest.mark.parametrize("compiled", [False, True])
def test_value_and_gradient_match_the_reference(shape, scale, compiled):
    x = (scale * reference.samples(*shape)).astype("float32")

    actual, (gradient,) = value_and_gradient(
        ops.spatial_uniformity, x, compiled=compiled
    )

    f = reference.spatial_uniformity
    np.testing.assert_allclose(actual, f(x), **TOLERANCE)
    expected = reference.finite_difference(f, x, step=1e-6 * scale)
    # The gradient scales as 1 / scale.
    assert_gradient_close(scale * gradient, scale * expected)


@pytest.mark.parametrize("temperature", [0.5, 20.0])
def test_other_temperatures_match_the_reference(temperature):
    x = reference.samples(7, 4)

    actual, (gradient,) = value_and_gradient(
        lambda x: ops.spatial_uniformity(x, temperature), x
    )

    def f(x):
        return reference.spatial_uniformity(x, temperature)

    # Opposite rows are at -4 t.
    np.testing.assert_allclose(actual, f(x), rtol=1e-5, atol=2e-6 * temperature)
    assert_gradient_close(gradient, reference.finite_difference(f, x))


@pytest.mark.parametrize("constant", [0.0, 0.3, 1e18, 1e-18])
def test_identical_rows_give_zero_and_no_gradient(constant):
    x = np.full((7, 4), constant)

    actual, (gradient,) = value_and_gradient(ops.spatial_uniformity, x)

    np.testing.assert_allclose(actual, 0.0, atol=2e-6)
    # Relative to the gradients of distinct rows, which scale as 1 / constant.
    np.testing.assert_allclose(gradient * (constant or 1.0), 0.0, atol=1e-5)


def test_gradient_of_duplicate_rows_matches_finite_differences():
    x = reference.samples(7, 4)
    x[3] = x[0]
    x[4] = -x[1]

    actual, (gradient,) = value_and_gradient(ops.spatial_uniformity, x)

    f = reference.spatial_uniformity
    np.testing.assert_allclose(actual, f(x), **TOLERANCE)
    assert_gradient_close(gradient, reference.finite_difference(f, x))


def test_row_of_zeros_has_no_gradient_and_does_not_affect_the_others():
    x = reference.samples(7, 4)
    x[2] = 0.0
    others = [0, 1, 3, 4, 5, 6]

    actual, (gradient,) = value_and_gradient(ops.spatial_uniformity, x)

    np.testing.assert_allclose(actual, reference.spatial_uniformity(x), **TOLERANCE)

    def f(moved):
        y = x.copy()
        y[others] = moved
        return reference.spatial_uniformity(y)

    np.testing.assert_array_equal(gradient[2], 0.0)
    expected = reference.finite_difference(f, x[others])
    assert_gradient_close(gradient[others], expected)


def test_constant_channels_match_the_reference():
    x = reference.samples(7, 4)
    x[:, 1:] = [2.0, 0.0, -1.0]

    actual, (gradient,) = value_and_gradient(ops.spatial_uniformity, x)

    f = reference.spatial_uniformity
    np.testing.assert_allclose(actual, f(x), **TOLERANCE)
    assert_gradient_close(gradient, reference.finite_difference(f, x))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("scale", [1e4, 1e-4])
def test_half_precision_equals_the_reference_of_the_rounded_rows(dtype, scale):
    # Squares of 1e4 overflow float16; squares of 1e-4 underflow to 0.
    x = keras.ops.cast(scale * reference.samples(8, 4), dtype)

    actual = compiled_on_jax(ops.spatial_uniformity)(x)

    assert keras.backend.standardize_dtype(actual.dtype) == "float32"
    rounded = keras.ops.convert_to_numpy(keras.ops.cast(x, "float32"))
    expected = reference.spatial_uniformity(rounded)
    np.testing.assert_allclose(float(actual), expected, **TOLERANCE)


def test_gradient_through_half_precision_is_finite():
    _, (gradient,) = value_and_gradient(
        lambda x: ops.spatial_uniformity(keras.ops.cast(x, "float16")),
        1e4 * reference.samples(8, 4),
    )

    assert np.isfinite(gradient).all()


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="unknown sizes are TensorFlow's"
)
def test_batch_of_one_found_at_run_time_gives_zero():
    actual, (gradient,) = value_and_gradient(
        ops.spatial_uniformity, reference.samples(1, 4), compiled=True
    )

    assert actual == 0.0  # no pair of rows, nothing to spread
    np.testing.assert_array_equal(gradient, np.zeros((1, 4)))


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_rows_raise(n):
    with pytest.raises(ValueError, match=rf"2 rows.*rows.shape=\({n}, 3\)"):
        ops.spatial_uniformity(np.zeros((n, 3), "float32"))


@pytest.mark.parametrize("shape", [(4,), (4, 2, 3)])
def test_wrong_rank_raises(shape):
    with pytest.raises(ValueError, match=r"shape \(n, c\).*keras_dskd.ops.rows"):
        ops.spatial_uniformity(reference.samples(*shape))


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_temperature_that_is_not_positive_raises(temperature):
    with pytest.raises(ValueError, match=rf"temperature={temperature}"):
        ops.spatial_uniformity(reference.samples(4, 3), temperature)
