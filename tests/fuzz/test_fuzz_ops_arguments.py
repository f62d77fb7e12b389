"""Formulas with difficult arguments, and of arrays that are not finite numbers."""

import functools

import keras
import numpy as np
import pytest
import reference
from fuzz import arrays
from fuzz.formulas import (
    COUNTS,
    FINITE,
    OF_PAIRS,
    OF_ROWS,
    SCALARS,
    SEEDS,
    SIZES,
    TOLERANCE,
    WIDTHS,
    assert_right,
    numpy,
)
from fuzz.fuzzing import fuzzed
from fuzz.verdict import answer
from gradients import value_and_gradient
from hypothesis import strategies as st

from keras_dskd import layers, losses, ops

# torch warns once, and then converts the list.
pytestmark = pytest.mark.filterwarnings("ignore:Creating a tensor from a list")

TEMPERATURES = st.sampled_from(
    [1e-3, 0.05, 0.5, 2, 7.5, 100.0, 1e4, 1e10, 1e30, np.float32(2), np.int64(3)]
    + [0, -1.0, float("nan"), float("inf"), 1e300, "2", None, [2.0], 1j, True]
)
EPSILONS = st.sampled_from(
    [1e-12, 1e-5, 1.0, np.float32(0.1), 1e10, 0, -1.0, -1e-9, float("nan")]
    + [float("inf"), "1e-5", None, 1j]
)


def far_uniformity(x, temperature):
    """The reference's value if each of its exponentials underflows."""
    u = reference.normalize(x)
    first, second = np.triu_indices(len(u), k=1)
    exponents = -temperature * ((u[first] - u[second]) ** 2).sum(axis=1)
    largest = exponents.max()
    return largest + np.log(np.mean(np.exp(exponents - largest)))


def is_number(value):
    is_real = isinstance(value, (int, float, np.number))
    return is_real and bool(np.isfinite(value) and value > 0)


@fuzzed(
    "ops",
    cases=40,
    share=0.03,
    name=st.sampled_from(["soft_targets", "spatial_uniformity"]),
    temperature=TEMPERATURES,
    seed=SEEDS,
)
def test_any_temperature(name, temperature, seed):
    """The value is right for any positive temperature."""
    is_valid = is_number(temperature)
    if temperature is True or (is_valid and temperature > 1e3):
        is_valid = None
    pair = [arrays.numbers((3, 5), seed=seed + i) for i in range(2)]
    pair = pair if name == "soft_targets" else pair[:1]
    given = [x.astype("float32") for x in pair]
    actual = numpy(answer(lambda: getattr(ops, name)(*given, temperature), is_valid))
    if name == "soft_targets" and temperature > 1e3:
        # Here the rounding error of the reference, times T², is large.
        assert np.isfinite(actual) and actual >= 0
        return
    if name == "soft_targets":
        expected = reference.soft_targets(*pair, float(temperature))
    else:
        expected = far_uniformity(*pair, float(temperature))
    # Squared distances have an error of 1e-6 times the squared diameter of the sphere.
    atol = 1e-5 if name == "soft_targets" else 1e-5 * max(1.0, float(temperature))
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=atol)


@fuzzed(
    "ops",
    cases=40,
    share=0.03,
    name=st.sampled_from(
        ["standardize", "channel_correlation", "off_diagonal_energy", *OF_PAIRS]
    ),
    epsilon=EPSILONS,
    kinds=st.tuples(*[st.sampled_from(["normal", "constant", "tiny", "huge"])] * 2),
    seed=SEEDS,
)
def test_any_epsilon(name, epsilon, kinds, seed):
    """The value is right for any positive epsilon, and never NaN."""
    ours, formula, _ = {**OF_ROWS, **OF_PAIRS}[name]
    is_valid = True if is_number(epsilon) else None
    pair = [arrays.numbers((3, 2), kind, seed + i) for i, kind in enumerate(kinds)]
    pair = pair if name in OF_PAIRS else pair[:1]
    given = [x.astype("float32") for x in pair]
    actual = numpy(answer(lambda: ours(*given, epsilon), is_valid))
    assert np.isfinite(actual).all(), actual
    if is_valid:
        np.testing.assert_allclose(actual, formula(*pair, float(epsilon)), **TOLERANCE)


def no_numbers(seed):
    """Inputs that are not arrays of real numbers."""
    x = np.random.default_rng(seed).normal(size=(3, 2)).astype("float32")
    return {
        "complex64": x.astype("complex64"),
        "complex128": x + 1j,
        "object": x.astype(object),
        "object of None": np.full((3, 2), None),
        "strings": x.astype(str),
        "bytes": x.astype(str).astype("S"),
        "dates": x.astype("datetime64[s]"),
        "None": None,
        "string": "rows",
        "number": 3.0,
        "ragged": [[1.0, 2.0], [3.0]],
        "dict": {"a": x},
        "list of arrays": [x, x],
        "tuple of lists": (x.tolist(), x.tolist()),
        "set": {1.0, 2.0},
        "function": numpy,
        "matrix of lists": x.tolist(),
    }


@fuzzed(
    "ops",
    cases=40,
    share=0.04,
    name=st.sampled_from(["rows", "soft_targets", *OF_ROWS, *OF_PAIRS]),
    kind=st.sampled_from(sorted(no_numbers(0))),
    seed=SEEDS,
)
def test_input_that_is_not_an_array_of_numbers_raises(name, kind, seed):
    x = no_numbers(seed)[kind]
    takes_two = name in OF_PAIRS or name == "soft_targets"
    given = [x, x] if takes_two else [x]
    is_valid = None if kind in ("object", "matrix of lists", "bytes") else False
    # A list of arrays with equal shapes can be stacked.
    if name in ("soft_targets", "normalize", "standardize"):
        is_valid = None if "list" in kind else is_valid
    actual = answer(
        lambda: getattr(ops, name)(*given),
        is_valid,
        like=lambda: keras.ops.cast(keras.ops.convert_to_tensor(x), "float32"),
    )
    assert np.isfinite(numpy(actual)).all()


@fuzzed(
    "ops",
    cases=8,
    share=0.03,
    name=st.sampled_from([*OF_ROWS, *OF_PAIRS, "soft_targets", "rows"]),
    kind=st.sampled_from(arrays.BROKEN),
    n=COUNTS,
    width=st.sampled_from([2, 4]),
    dtype=st.sampled_from(arrays.FLOATS),
    seed=SEEDS,
)
def test_non_finite_input_gives_a_non_finite_value(name, kind, n, width, dtype, seed):
    """So that you see when training breaks."""
    x, _ = arrays.as_dtype(arrays.numbers((n, width), kind, seed), dtype)
    takes_two = name in OF_PAIRS or name == "soft_targets"
    given = [arrays.passed(x, dtype, "tensor")] * (2 if takes_two else 1)
    actual = answer(lambda: getattr(ops, name)(*given))
    assert not np.isfinite(numpy(actual)).all() or kind == "inf"


@functools.cache
def scalar_of(name):
    """The same function object for each formula: JAX compiles once per shape."""
    return getattr(ops, name)


@fuzzed(
    "ops",
    cases=20,
    share=0.05,
    name=st.sampled_from(SCALARS),
    n=COUNTS,
    width=WIDTHS,
    # The gradient of a length is 1 / |x|: beyond float32 for numbers below 1e-38.
    kinds=st.tuples(
        *[st.sampled_from([k for k in arrays.FINITE if k != "denormal"])] * 2
    ),
    seed=SEEDS,
)
def test_gradients_are_finite(name, n, width, kinds, seed):
    takes_two = name in OF_PAIRS or name == "soft_targets"
    width = max(width, 2) if name == "soft_targets" else width
    pair = [arrays.numbers((n, width), kind, seed + i) for i, kind in enumerate(kinds)]
    value, gradients = answer(
        lambda: value_and_gradient(scalar_of(name), *pair[: 1 + takes_two]), valid=True
    )
    assert np.isfinite(value)
    for gradient in gradients:
        assert np.isfinite(gradient).all(), gradient


@fuzzed(
    "ops",
    cases=25,
    share=0.03,
    name=st.sampled_from(["standardize", *OF_PAIRS]),
    n=COUNTS,
    width=WIDTHS,
    kinds=st.tuples(FINITE, FINITE),
    dtype=st.sampled_from(["bool", "int32", "float32"]),
    left_out=st.sampled_from([0.0, 1e30, np.nan, np.inf]),
    seed=SEEDS,
)
def test_masked_rows_are_ignored(name, n, width, kinds, dtype, left_out, seed):
    ours, formula, bounds = {**OF_ROWS, **OF_PAIRS}[name]
    mask = np.random.default_rng(seed).random(n) < 0.6
    pair = [arrays.numbers((n, width), kind, seed + i) for i, kind in enumerate(kinds)]
    pair = pair if name in OF_PAIRS else pair[:1]
    for x in pair:
        x[~mask] = left_out
    given = [x.astype("float32") for x in pair]
    actual = answer(lambda: ours(*given, mask=mask.astype(dtype)), valid=True)
    if name == "standardize":
        np.testing.assert_array_equal(numpy(actual)[~mask], 0)
        if mask.any():
            kept = keras.ops.convert_to_tensor(numpy(actual)[mask].astype("float32"))
            assert_right(kept, formula, pair[0][mask], bounds=bounds)
    elif mask.sum() < 2:
        np.testing.assert_array_equal(numpy(actual), 0)
    else:
        assert_right(actual, formula, *(x[mask] for x in pair), bounds=bounds)


@fuzzed(
    "ops",
    cases=25,
    share=0.02,
    shape=SIZES,
    weight_shape=SIZES,
    leading=st.booleans(),
    seed=SEEDS,
)
def test_weighted_means(shape, weight_shape, leading, seed):
    """Weights must match the leading axes of the values."""
    shape, weight_shape = (
        tuple(max(1, size) for size in s) for s in (shape, weight_shape)
    )
    weight_shape = shape[: len(weight_shape)] if leading else weight_shape
    values = arrays.numbers(shape, seed=seed)
    weight = np.abs(arrays.numbers(weight_shape, seed=seed + 1))
    given = [x.astype("float32") for x in (values, weight)]
    is_valid = None
    if leading and shape and weight_shape:
        is_valid = True
    elif any(w not in (1, v) for w, v in zip(weight_shape, shape, strict=False)):
        is_valid = False
    actual = numpy(answer(lambda: ops.weighted_mean(*given), is_valid))
    assert np.isfinite(actual)
    if is_valid:
        missing = (1,) * (len(shape) - len(weight_shape))
        expected = np.mean(values * weight.reshape(weight_shape + missing))
        np.testing.assert_allclose(actual, expected, **TOLERANCE)


#: Class -> its arguments -> the values that are valid.
ARGUMENTS = {
    losses.SoftTargets: {"temperature": "positive", "student_layer_name": "name"},
    losses.ChannelAlignment: {"epsilon": "positive", "teacher_layer_name": "name"},
    losses.ChannelIndependence: {
        "epsilon": "positive",
        "off_diagonal_weight": "not negative",
        "target": ("teacher", "self"),
    },
    losses.SpatialUniformity: {
        "temperature": "positive",
        "rows": ("pooled", "flattened", "positions"),
        "student_layer_name": "name",
    },
    layers.ChannelIndependence: {"weight": "not negative", "epsilon": "positive"},
    layers.SpatialUniformity: {"weight": "not negative", "temperature": "positive"},
}
#: Every argument of every class.
EACH = [(made, name) for made, names in ARGUMENTS.items() for name in names]
ODD = [0, -1, 0.5, 2, np.float32(1.5), float("nan"), float("inf"), "2", "hidden", ""]
ODD += ["self", "pooled", None, [], ["hidden"], (1.0,), {}, 1j, b"hidden", object()]
ODD += [10**400, 1e300]


def takes(what, value):
    """Whether a value is valid; `None` if either is acceptable."""
    if what == "name":
        # Only a distiller knows which names exist.
        return True if value is None or (value and isinstance(value, str)) else None
    if isinstance(what, tuple):
        return isinstance(value, str) and value in what
    if isinstance(value, (int, float)) and 1e299 < value < float("inf"):
        return None
    return is_number(value) or (what == "not negative" and value == 0)


@fuzzed(
    "ops",
    cases=60,
    share=0.01,
    which=st.sampled_from(EACH),
    value=st.sampled_from(ODD),
)
def test_any_argument_of_a_loss_or_layer(which, value):
    """An invalid value raises in the constructor, not in the first step."""
    made, name = which
    needed = {"weight": 1.0} if made.__module__.startswith("keras_dskd.layers") else {}
    answer(lambda: made(**{**needed, name: value}), takes(ARGUMENTS[made][name], value))
