"""Features become rows; rows are standardized and normalized."""

import keras
import numpy as np
import pytest
import reference
from gradients import assert_gradient_close, compiled_on_jax, value_and_gradient

from keras_dskd import ops

# Means over at most some hundred float32 numbers of order 1.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}
KINDS = ["pooled", "flattened", "positions"]


def numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def standardize(x):
    return numpy(compiled_on_jax(ops.standardize)(x.astype("float32")))


def normalize(x):
    return numpy(compiled_on_jax(ops.normalize)(x.astype("float32")))


def sum_of(f, weights):
    """A scalar whose gradient depends on every entry that `f` returns."""
    return lambda x: keras.ops.sum(f(x) * keras.ops.cast(weights, "float32"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(3, 4), (3, 5, 4), (2, 3, 2, 2, 4)])
def test_rows_match_the_reference(kind, shape):
    feature = reference.samples(*shape)

    actual = numpy(ops.rows(feature, kind, data_format="channels_last"))

    np.testing.assert_allclose(actual, reference.rows(feature, kind), **TOLERANCE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(2, 4, 3, 5), (2, 4, 3, 2, 2)])
def test_channels_first_rows_match_the_reference(kind, shape):
    feature = reference.samples(*shape)

    actual = numpy(ops.rows(feature, kind, data_format="channels_first"))

    expected = reference.rows(feature, kind, channels_first=True)
    np.testing.assert_allclose(actual, expected, **TOLERANCE)


def test_rows_of_two_samples_with_two_positions_by_hand():
    feature = np.array([[[1.0, 2.0], [3.0, 6.0]], [[0.0, 0.0], [-1.0, 1.0]]])

    pooled = [[2.0, 4.0], [-0.5, 0.5]]  # (1 + 3) / 2, (2 + 6) / 2, ...
    flattened = [[1.0, 2.0, 3.0, 6.0], [0.0, 0.0, -1.0, 1.0]]
    positions = [[1.0, 2.0], [3.0, 6.0], [0.0, 0.0], [-1.0, 1.0]]
    for kind, expected in zip(KINDS, (pooled, flattened, positions), strict=True):
        np.testing.assert_array_equal(numpy(ops.rows(feature, kind)), expected)


def test_rank_three_is_channels_last_whatever_the_data_format():
    feature = reference.samples(2, 3, 5)

    first = numpy(ops.rows(feature, "positions", data_format="channels_first"))

    np.testing.assert_allclose(first, feature.reshape(6, 5), **TOLERANCE)


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_data_format_defaults_to_that_of_keras(data_format):
    feature = reference.samples(2, 3, 4, 5)
    previous = keras.config.image_data_format()
    keras.config.set_image_data_format(data_format)
    try:
        actual = numpy(ops.rows(feature))
    finally:
        keras.config.set_image_data_format(previous)

    expected = reference.rows(feature, channels_first=data_format == "channels_first")
    np.testing.assert_allclose(actual, expected, **TOLERANCE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "uint8", "int32"])
def test_rows_are_float32_and_pool_in_float32(kind, dtype):
    # 4 x 4 positions of up to 255: neither half precision represents their sum, 4080.
    drawn = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype("float32")
    # Every dtype represents 8 bits exactly; JAX has no float64 tensor.
    is_numpy = dtype == "float64"
    feature = drawn.astype(dtype) if is_numpy else keras.ops.cast(drawn, dtype)

    actual = ops.rows(feature, kind)

    assert keras.backend.standardize_dtype(actual.dtype) == "float32"
    expected = reference.rows(drawn, kind)
    np.testing.assert_allclose(numpy(actual), expected, **TOLERANCE)


def test_unknown_kind_of_rows_raises():
    with pytest.raises(ValueError, match=r"one of .*pooled.* Received: rows='mean'"):
        ops.rows(reference.samples(2, 3), "mean")


def test_feature_without_channels_raises():
    with pytest.raises(ValueError, match=r"Received: feature.shape=\(3,\)"):
        ops.rows(reference.samples(3))


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="unknown sizes are TensorFlow's"
)
@pytest.mark.parametrize("kind", ["pooled", "positions"])
def test_rows_of_unknown_batch_and_unknown_positions(kind):
    import tensorflow as tf

    feature = reference.samples(3, 4, 2, 5)
    unknown = [tf.TensorSpec([None, None, None, 5], tf.float32)]

    actual = tf.function(lambda x: ops.rows(x, kind), unknown)(feature)

    expected = reference.rows(feature, kind)
    np.testing.assert_allclose(numpy(actual), expected, **TOLERANCE)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="unknown sizes are TensorFlow's"
)
def test_flattened_rows_accept_an_unknown_batch_but_not_unknown_positions():
    import tensorflow as tf

    feature = reference.samples(3, 4, 5)
    flatten = tf.function(lambda x: ops.rows(x, "flattened"))

    known = flatten.get_concrete_function(tf.TensorSpec([None, 4, 5], tf.float32))
    assert tuple(known.structured_outputs.shape) == (None, 20)
    np.testing.assert_allclose(
        numpy(known(tf.constant(feature, tf.float32))),
        feature.reshape(3, 20),
        **TOLERANCE,
    )
    with pytest.raises(ValueError, match="needs a feature map of known size"):
        flatten.get_concrete_function(tf.TensorSpec([3, None, 5], tf.float32))


@pytest.mark.parametrize("shape", [(2, 3), (5, 5), (32, 4)])
def test_standardized_rows_match_the_reference(shape):
    x = 3.0 * reference.samples(*shape) + 1.0

    actual = standardize(x)

    np.testing.assert_allclose(actual, reference.standardize(x), rtol=1e-5, atol=1e-5)


def test_standardized_rows_by_hand():
    # Mean 4, biased variance 16; sqrt(16 + 9) = 5. Second channel: mean -1, variance
    # 0, so 0 / sqrt(0 + 9).
    x = np.array([[8.0, -1.0], [0.0, -1.0]])

    np.testing.assert_allclose(
        numpy(ops.standardize(x, epsilon=9.0)), [[0.8, 0.0], [-0.8, 0.0]], rtol=1e-6
    )


@pytest.mark.parametrize("function", [ops.standardize, ops.normalize])
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_empty_rows_raise(function, shape):
    with pytest.raises(ValueError, match=r"at least one row and one channel.*\("):
        function(np.zeros(shape, "float32"))


@pytest.mark.parametrize("scale", [1e18, 1e4, 1.0, 1e-2, 1e-18])
def test_standardized_rows_match_the_reference_at_every_scale(scale):
    x = (scale * reference.samples(7, 3)).astype("float32")

    actual = standardize(x)

    np.testing.assert_allclose(actual, reference.standardize(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n", [11, 100])
@pytest.mark.parametrize("constant", [0.0, 0.1, -3.3, 1234.567, 1e6 / 3, 1e18 / 3])
def test_constant_channel_standardizes_to_zero(n, constant):
    x = reference.samples(n, 2)
    x[:, 1] = np.float32(constant)

    actual = standardize(x)

    # The float32 mean of n equal numbers has a rounding error that grows with them. It
    # must not count as a spread.
    np.testing.assert_allclose(actual[:, 1], 0.0, atol=1e-6)
    np.testing.assert_allclose(
        actual[:, 0], reference.standardize(x)[:, 0], rtol=1e-5, atol=1e-6
    )


def test_small_spread_around_a_large_mean_is_standardized():
    # Around 100, float32 represents a spread of 1 to about 1e-5.
    x = (reference.samples(7, 3) + 100.0).astype("float32")

    actual = standardize(x)

    np.testing.assert_allclose(actual, reference.standardize(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", ["random", "constant channel", "identical rows"])
def test_gradient_of_standardized_rows_matches_finite_differences(case):
    x = reference.samples(5, 3)
    if case == "constant channel":
        x[:, 0] = 0.5
    if case == "identical rows":
        x[:] = x[0]
    weights = reference.samples(5, 3, seed=1)

    _, (gradient,) = value_and_gradient(sum_of(ops.standardize, weights), x)

    expected = reference.finite_difference(
        lambda x: (weights * reference.standardize(x)).sum(), x
    )
    assert_gradient_close(gradient, expected)


@pytest.mark.parametrize("shape", [(2, 3), (32, 40)])
@pytest.mark.parametrize("scale", [1e18, 1.0, 1e-18])
def test_normalized_rows_match_the_reference(shape, scale):
    x = (scale * reference.samples(*shape)).astype("float32")

    actual = normalize(x)

    np.testing.assert_allclose(actual, reference.normalize(x), **TOLERANCE)


def test_normalized_rows_by_hand():
    # sqrt(3² + 4²) = 5; a row of zeros has no direction.
    x = np.array([[3.0, -4.0], [0.0, 0.0]])

    np.testing.assert_allclose(normalize(x), [[0.6, -0.8], [0.0, 0.0]], rtol=1e-6)


@pytest.mark.parametrize("scale", [1e18, 1.0, 1e-18])
def test_gradient_of_normalized_rows_matches_finite_differences(scale):
    x = (scale * reference.samples(4, 3)).astype("float32")
    weights = reference.samples(4, 3, seed=1)

    _, (gradient,) = value_and_gradient(sum_of(ops.normalize, weights), x)

    expected = reference.finite_difference(
        lambda x: (weights * reference.normalize(x)).sum(), x, step=1e-6 * scale
    )
    # The gradient scales as 1 / scale.
    assert_gradient_close(scale * gradient, scale * expected)


def test_gradient_of_a_normalized_row_of_zeros_is_zero():
    x = reference.samples(3, 4)
    x[1] = 0.0

    _, (gradient,) = value_and_gradient(
        sum_of(ops.normalize, reference.samples(3, 4, seed=1)), x
    )

    np.testing.assert_array_equal(gradient[1], 0.0)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient[0]).max() > 0.01
