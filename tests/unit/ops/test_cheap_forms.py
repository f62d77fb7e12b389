"""The cheap forms equal the formulas, with fewer rows than channels or more."""

import importlib

import analytic_gradients
import keras
import numpy as np
import pytest
import reference
from gradients import value, value_and_gradient

from keras_dskd import ops
from keras_dskd.features.feature_model import ShapesOnly

uniformity = importlib.import_module("keras_dskd.ops.spatial_uniformity")

# Fewer rows than channels, as many, and more. (Two standardized rows are always 1 and
# -1, which leaves only rounding errors in the gradient.)
SHAPES = [(4, 40), (16, 16), (40, 4)]


def assert_close(actual, expected, tolerance=1e-5):
    """Compares in units of the largest entry: the entries are float32 sums."""
    scale = max(np.abs(expected).max(), 1e-3)
    np.testing.assert_allclose(actual / scale, expected / scale, atol=tolerance)


def correlated(n, c, case, seed=0):
    x = reference.samples(n, c, seed=seed)
    if case == "dependent":
        x += 3.0 * x[:, :1]
    elif case == "constant channels":
        x[:, c // 2 :] = 0.5
    elif case == "duplicate rows":
        x[n // 2 :] = x[0]
    return x.astype("float32").astype("float64")


# JAX always compiles here, and torch never does.
COMPILED = [False, True] if keras.backend.backend() == "tensorflow" else [False]

CASES = ["independent", "dependent", "constant channels", "duplicate rows"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("compiled", COMPILED)
def test_off_diagonal_energy_and_its_gradient(shape, case, compiled):
    x = correlated(*shape, case)

    actual, (gradient,) = value_and_gradient(
        ops.off_diagonal_energy, x, compiled=compiled
    )

    assert_close(actual, reference.off_diagonal_energy(x))
    assert_close(gradient, analytic_gradients.off_diagonal_energy(x))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("compiled", COMPILED)
def test_cross_off_diagonal_energy_and_its_gradient(shape, case, compiled):
    teacher = reference.samples(*shape, seed=1)
    # A student that depends on the teacher has a large diagonal to subtract.
    x = correlated(*shape, case) + (teacher if case == "dependent" else 0.0)

    actual, (_, gradient) = value_and_gradient(
        ops.cross_off_diagonal_energy, teacher, x, compiled=compiled
    )

    assert_close(actual, reference.cross_off_diagonal_energy(teacher, x))
    assert_close(gradient, analytic_gradients.cross_off_diagonal_energy(teacher, x))


@pytest.mark.parametrize("c", [5, 16])
def test_energies_of_independent_channels_do_not_cancel_away(c):
    # n - 1 orthogonal contrasts of n samples, and one channel more than possible.
    n = c
    basis, _ = np.linalg.qr(
        np.concatenate([np.ones((n, 1)), reference.samples(n, n - 1)], axis=1)
    )
    x = np.concatenate([basis[:, 1:], basis[:, 1:2]], axis=1)[:, : n + 1]
    assert x.shape == (n, n)
    wide = np.concatenate([x, basis[:, 2:3]], axis=1)  # (n, n + 1): the other side.

    for rows in (x, wide):
        np.testing.assert_allclose(
            value(ops.off_diagonal_energy, 10.0 * rows),
            reference.off_diagonal_energy(10.0 * rows),
            rtol=1e-5,
        )


@pytest.mark.parametrize("mask", [[1, 1, 0, 1, 0, 1], [1, 0, 0, 0, 0, 0], [0] * 6])
def test_masked_rows_are_left_out_with_fewer_rows_than_channels(mask):
    mask = np.array(mask, bool)
    teacher, student = (reference.samples(6, 20, seed=seed) for seed in (0, 1))
    teacher[~mask] = np.nan

    actual, (_, gradient) = value_and_gradient(
        lambda t, s: ops.cross_off_diagonal_energy(t, s, mask=mask), teacher, student
    )

    expected = np.zeros_like(student)
    expected_value = 0.0
    if mask.sum() > 1:
        kept = teacher[mask], student[mask]
        expected_value = reference.cross_off_diagonal_energy(*kept)
        expected[mask] = analytic_gradients.cross_off_diagonal_energy(*kept)
    assert_close(actual, np.asarray(expected_value))
    assert_close(gradient, expected)


# With 36 pairs at once, 6 rows are a block: less than one block, one, one row more, two
# blocks of equal and unequal size, and single-row blocks.
@pytest.mark.parametrize("n", [2, 5, 6, 7, 12, 13, 36, 40])
@pytest.mark.parametrize("temperature", [2.0, 20.0])
@pytest.mark.parametrize("compiled", COMPILED)
def test_uniformity_in_blocks_and_its_gradient(n, temperature, compiled, monkeypatch):
    monkeypatch.setattr(uniformity, "MAX_PAIRS_PER_BLOCK", 36)
    monkeypatch.setattr(uniformity, "MIN_ROWS_PER_BLOCK", 1)
    x = reference.samples(n, 3)
    x[n // 2] = x[0]

    actual, (gradient,) = value_and_gradient(
        lambda x: ops.spatial_uniformity(x, temperature), x, compiled=compiled
    )

    # An exponent's error is the temperature times a distance's rounding error.
    np.testing.assert_allclose(
        actual,
        reference.spatial_uniformity(x, temperature),
        rtol=1e-5,
        atol=1e-6 * temperature,
    )
    expected = analytic_gradients.spatial_uniformity(x, temperature)
    assert_close(gradient, expected, tolerance=5e-6 * temperature)


def test_uniformity_of_many_rows_in_real_blocks():
    n = int(uniformity.MAX_PAIRS_PER_BLOCK**0.5) + 300
    x = reference.samples(n, 4)

    actual, (gradient,) = value_and_gradient(ops.spatial_uniformity, x, compiled=True)

    assert_close(actual, np.asarray(reference.spatial_uniformity(x)))
    expected = analytic_gradients.spatial_uniformity(x)
    assert_close(gradient, expected)


def test_analytic_gradients_match_finite_differences():
    teacher, x = reference.samples(5, 4, seed=1), reference.samples(5, 4)

    def check(name, *arguments):
        f, gradient = getattr(reference, name), getattr(analytic_gradients, name)
        expected = reference.finite_difference(lambda x: f(*arguments, x), x)
        np.testing.assert_allclose(gradient(*arguments, x), expected, atol=1e-7)

    check("off_diagonal_energy")
    check("cross_off_diagonal_energy", teacher)
    check("spatial_uniformity")


def test_gradient_scales_with_the_upstream_gradient():
    x = reference.samples(7, 4)

    _, (gradient,) = value_and_gradient(
        lambda x: 3.0 * ops.spatial_uniformity(x) + keras.ops.sum(x), x
    )

    assert_close(gradient, 3.0 * analytic_gradients.spatial_uniformity(x) + 1.0)


def test_second_derivative_of_uniformity_raises():
    x = reference.samples(5, 3).astype("float32")

    with pytest.raises(NotImplementedError, match="first derivative only"):
        second_derivative(ops.spatial_uniformity, x)


def test_second_derivative_of_energies_matches_finite_differences():
    # Fewer rows than channels; other shapes take plain matrix products.
    x = reference.samples(3, 5)

    actual = second_derivative(ops.off_diagonal_energy, x.astype("float32"))

    expected = reference.finite_difference(
        lambda x: (analytic_gradients.off_diagonal_energy(x) * factors(x)).sum(), x
    )
    assert_close(actual, expected, tolerance=1e-4)


def factors(x):
    return np.linspace(1.0, 2.0, x.size, dtype=x.dtype).reshape(x.shape)


def second_derivative(f, x):
    """Gradient of the sum of `f`'s gradient times `factors`."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return np.asarray(jax.grad(lambda x: (jax.grad(f)(x) * factors(x)).sum())(x))
    if backend == "torch":
        import torch

        tensor = torch.tensor(x, requires_grad=True)
        (first,) = torch.autograd.grad(f(tensor), tensor, create_graph=True)
        total = (first * torch.tensor(factors(x))).sum()
        return torch.autograd.grad(total, tensor)[0].numpy()
    import tensorflow as tf

    tensor = tf.constant(x)
    with tf.GradientTape() as outer:
        outer.watch(tensor)
        with tf.GradientTape() as inner:
            inner.watch(tensor)
            result = f(tensor)
        total = tf.reduce_sum(inner.gradient(result, tensor) * factors(x))
    return outer.gradient(total, tensor).numpy()


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="only TensorFlow has unknown sizes"
)
@pytest.mark.parametrize("shape", [(3, 5), (1, 5), (40, 5)])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_size_unknown_until_run_time_selects_the_form(shape, jit_compile, monkeypatch):
    import tensorflow as tf

    monkeypatch.setattr(uniformity, "MAX_PAIRS_PER_BLOCK", 36)
    monkeypatch.setattr(uniformity, "MIN_ROWS_PER_BLOCK", 1)
    x = reference.samples(*shape)

    @tf.function(
        input_signature=[tf.TensorSpec([None, 5], tf.float32)], jit_compile=jit_compile
    )
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            result = ops.off_diagonal_energy(x) + ops.spatial_uniformity(x)
        return result, tape.gradient(result, x)

    actual, gradient = (result.numpy() for result in step(tf.constant(x, "float32")))

    if len(x) == 1:
        assert actual == 0.0  # A single row has no statistics.
        np.testing.assert_array_equal(gradient, np.zeros((1, 5)))
        return
    functions = ("off_diagonal_energy", "spatial_uniformity")
    assert_close(actual, np.sum([getattr(reference, f)(x) for f in functions]))
    assert_close(gradient, sum(getattr(analytic_gradients, f)(x) for f in functions))


@pytest.mark.parametrize("name", ["off_diagonal_energy", "spatial_uniformity"])
def test_output_spec_is_computed_for_any_batch_size(name):
    spec = ShapesOnly(getattr(ops, name)).compute_output_spec(
        keras.KerasTensor((None, 6))
    )

    assert (tuple(spec.shape), spec.dtype) == ((), "float32")
