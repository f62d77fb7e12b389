"""Splitting, checking inputs, and weights: right results or clear errors."""

import collections
import decimal
import fractions
import functools
import math
import types

import keras
import numpy as np
from fuzz.fuzzing import fuzzed
from fuzz.verdict import Refused, Wrong, answer
from hypothesis import strategies as st

from keras_dskd.data import pairs
from keras_dskd.distiller import arguments, loss_term, loss_weights

SEEDS = st.integers(0, 2**32 - 1)

# Splitting

LEAVES = st.sampled_from([None, 0, 1.5, "text", np.zeros((2, 3)), np.zeros(0)])
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.sampled_from(["teacher", "student", "a", 1]), inner)
    ),
    max_leaves=4,
)
KEYS = st.sampled_from([*pairs.KEYS, *pairs.KEYS, "Student", "", "depth", 0, None, ()])
DICTS = st.sampled_from([dict, collections.OrderedDict, collections.defaultdict])


def as_dict(kind, items):
    made = kind(list) if kind is collections.defaultdict else kind()
    made.update(items)
    return made


@fuzzed(
    "pairs",
    cases=100,
    share=0.06,
    x=st.builds(as_dict, DICTS, st.dictionaries(KEYS, ANYTHING, max_size=4)) | ANYTHING,
)
def test_split(x):
    """Each modality is returned as the same object."""
    keys = list(x) if isinstance(x, dict) else []
    is_pair = any(key in pairs.KEYS for key in keys if isinstance(key, str))
    is_valid = not is_pair or (
        "student" in keys and all(key in pairs.KEYS for key in keys)
    )
    pair = answer(lambda: pairs.split(x), None if is_valid and is_pair else is_valid)
    if not is_pair:
        assert pair.teacher is x and pair.student is x
        assert pair.teacher_features is None
        return
    for key in ("teacher", "student", "teacher_features"):
        assert getattr(pair, key) is (x[key] if key in keys else None)


# Inputs that fit a model


class Takes(keras.layers.Layer):
    """Identity for one input shape. Keras alone would accept some others."""

    def __init__(self, shape):
        super().__init__()
        self.shape = shape

    def call(self, inputs):
        given = inputs.shape[1:]
        fits = len(given) == len(self.shape) and all(
            None in (size, expected) or size == expected
            for size, expected in zip(given, self.shape, strict=True)
        )
        if not fits:
            raise ValueError(f"Expected {self.shape}. Received {given}")
        return inputs


INPUT_SHAPES = st.sampled_from([(), (1,), (3,), (None,), (2, 3), (None, 3), (3, 1)])
SHAPES = st.sampled_from(
    [(), (2,), (2, 1), (2, 3), (2, 4), (2, 3, 1), (2, 1, 1), (2, 2, 3), (2, 3, 3)]
    + [(0, 3), (1, 3), (2, 3, 2), (2, 2, 3, 1), (2, 0), (2, 1, 3)]
)
NESTS = st.sampled_from(["one", "list", "tuple", "dict", "nested"])


def nested(nest, leaves):
    names = ("a", "b", "c")
    if nest == "one":
        return leaves[0]
    if nest == "dict":
        return dict(zip(names, leaves, strict=False))
    if nest == "nested":
        return {"a": leaves[0], "b": list(leaves[1:])}
    return {"list": list, "tuple": tuple}[nest](leaves)


@functools.cache
def model_of(nest, shapes, name):
    inputs = [
        keras.Input(shape, name=letter)
        for shape, letter in zip(shapes, "abc", strict=False)
    ]
    outputs = [Takes(one.shape[1:])(one) for one in inputs]
    return keras.Model(nested(nest, inputs), outputs, name=name)


def accepts(model, x):
    try:
        model(x)
    except Exception:
        return False
    return True


@fuzzed(
    "pairs",
    cases=60,
    share=0.06,
    nest=NESTS,
    shapes=st.lists(INPUT_SHAPES, min_size=1, max_size=2).map(tuple),
    given_nest=st.none() | NESTS,
    given=st.lists(SHAPES, min_size=1, max_size=2),
    fitting=st.booleans(),
    batch=st.sampled_from([1, 2, 3]),
)
def test_fits_agrees_with_calling_the_model(
    nest, shapes, given_nest, given, fitting, batch
):
    """`fits` may return `None`, if it does not know."""
    shapes = shapes[:1] if nest == "one" else shapes
    model = model_of(nest, shapes, "student")
    if fitting:
        given = [(batch, *(2 if size is None else size for size in s)) for s in shapes]
        given_nest = nest
    x = nested(given_nest or nest, [np.zeros(shape, "float32") for shape in given])
    verdict = answer(lambda: pairs.fits(model, x), valid=True)
    if fitting and verdict is False:
        raise Wrong("The model's own input does not fit it")
    if () in given:
        return  # Keras handles inputs without a batch axis.
    if verdict is not None and verdict != accepts(model, x):
        raise Wrong(f"fits={verdict}, but Keras finds the opposite")


@fuzzed(
    "pairs",
    cases=60,
    share=0.04,
    role=st.sampled_from(["teacher", "student"]),
    shapes=st.tuples(INPUT_SHAPES, INPUT_SHAPES),
    x=st.tuples(
        SHAPES.map(np.zeros) | ANYTHING,
        SHAPES.map(np.zeros) | ANYTHING,
    ),
)
def test_check_input(role, shapes, x):
    """Raises a clear error only if the model does not accept the input."""
    teacher, student = (
        model_of("one", (shape,), name)
        for shape, name in zip(shapes, ("teacher", "student"), strict=True)
    )
    pair = pairs.Pair(*x, *[None] * (len(pairs.Pair._fields) - 2))
    model = teacher if role == "teacher" else student
    try:
        answer(
            lambda: pairs.check_input(role, pair, teacher, student),
            like=lambda: keras.tree.flatten(getattr(pair, role)),
        )
    except Refused:
        if accepts(model, getattr(pair, role)):
            raise Wrong("Refused, but the model accepts it") from None
        raise


# Weights


class Odd:
    """Not a number, though `float` accepts it."""

    def __float__(self):
        return 0.5


GOOD = [0, 1, 0.5, 2.5, -0.0, np.float32(0.5), np.float64(0.25), np.int64(1)]
GOOD += [fractions.Fraction(1, 2), np.float16(0.5), 1e-300, 1e30]
BAD = [-1, -1e-9, 1.5j, math.nan, math.inf, -math.inf, None, "1", "", b"1", True, False]
BAD += [decimal.Decimal("0.5"), Odd(), {}, {"a": 1}, set(), object(), [1.0], (1.0,)]
BAD += [np.array([1.0]), np.array("a"), np.bool_(True), np.complex64(1), 10**400]
BAD += [-(10**400), fractions.Fraction(-1, 2), np.float32(-1), np.float32(np.nan)]


@fuzzed(
    "pairs",
    cases=100,
    share=0.03,
    weight=st.sampled_from(GOOD + BAD)
    | st.floats()
    | st.integers()
    | st.floats(width=32),
    most=st.sampled_from([math.inf, 1, 1.0]),
)
def test_check_number(weight, most):
    is_number = isinstance(weight, (int, float, np.number, fractions.Fraction))
    is_number = is_number and not isinstance(weight, (bool, np.complexfloating))
    # A weight must be finite in float32.
    is_valid = (
        bool(is_number and 0 <= weight <= most and float(weight) <= 3e38)
        if (not isinstance(weight, int) or weight < 10**300)
        else False
    )
    answer(lambda: loss_weights.check_number("w", weight, most), is_valid)


def linear(step):
    return 0.5 * keras.ops.cast(step, "float32")


NUMBERS = [0, 1, 0.5, np.float32(0.25)]
CALLABLES = [linear, keras.optimizers.schedules.InverseTimeDecay(1.0, 2, 0.5)]
BROKEN = [-1.0, math.nan, "1", None, True, [1.0], object()]
LISTS = st.sampled_from([list, tuple, np.array, "ragged", "one"])


@fuzzed(
    "pairs",
    cases=100,
    share=0.04,
    given=st.lists(st.sampled_from(NUMBERS + CALLABLES), max_size=4),
    broken=st.lists(st.sampled_from(BROKEN), max_size=1),
    count=st.none() | st.integers(1, 4),
    kind=LISTS,
    step=st.integers(0, 3),
    seed=SEEDS,
)
def test_weights_of_terms(given, broken, count, kind, step, seed):
    """Valid weights give the weighted sum; others raise."""
    count = count or max(len(given), 1)
    both = given + broken
    if kind == "one":
        both = both[:1] or [1.0]
        passed = both[0]
    elif kind == "ragged":
        passed = [both]
    elif kind is np.array:
        passed = np.array(
            both, object if broken or set(CALLABLES) & set(both) else None
        )
    else:
        passed = kind(both)
    is_valid = kind != "ragged" and len(both) == count and not (set(map(id, broken)))
    if kind == "one" and both[0] is None:
        is_valid = True
        both = [1.0] * count
    elif kind == "one" and isinstance(both[0], list):
        is_valid = count == 1
        both = both[0]
    elif kind == "one":
        is_valid = count == 1 and not any(both[0] is bad for bad in BROKEN)
    checked = answer(lambda: loss_weights.check_weights(passed, count), is_valid)
    assert len(checked) == count
    values = np.random.default_rng(seed).normal(size=count).astype("float32")
    total = answer(lambda: weighted_sum(checked, values, step), valid=True)
    at_step = [float(w(step)) if callable(w) else float(w) for w in both]
    np.testing.assert_allclose(total, np.dot(at_step, values), rtol=1e-5, atol=1e-6)


def weighted_sum(weights, values, step):
    terms = [types.SimpleNamespace(weight=None) for _ in weights]
    state = loss_weights.LossWeightState(0.5, terms, weights)
    for _ in range(step):
        state.advance()
    tensors = [keras.ops.convert_to_tensor(value) for value in values]
    return float(keras.ops.convert_to_numpy(state.weighted_sum(tensors)))


# Losses and projectors


def a_loss():
    return keras.distillation.FeatureDistillation("mse", "hidden", "hidden")


LOSSES = st.sampled_from(
    [a_loss(), keras.distillation.LogitsDistillation(), "mse", None, 1.0, {}, a_loss]
    + [keras.losses.MeanSquaredError(), keras.layers.Dense(1)]
)


@fuzzed(
    "pairs",
    cases=60,
    share=0.02,
    losses=LOSSES | st.lists(LOSSES, max_size=3) | st.tuples(LOSSES, LOSSES),
    projectors=st.none()
    | st.dictionaries(
        st.sampled_from(["hidden", "hiden", None, 0, ""]),
        st.sampled_from([keras.layers.Dense(2), None, 3, "dense", keras.layers.Dense]),
        max_size=2,
    )
    | st.sampled_from([[], [1], "hidden", 3, keras.layers.Dense(2)]),
)
def test_losses_and_projectors(losses, projectors):
    given = list(losses) if isinstance(losses, (list, tuple)) else [losses]
    kind = keras.distillation.DistillationLoss
    is_valid = bool(given) and all(isinstance(loss, kind) for loss in given)
    checked = answer(lambda: arguments.check_losses(losses), is_valid)
    assert all(one is other for one, other in zip(checked, given, strict=True))
    terms = loss_term.make_terms(checked, keras.Sequential())
    reads = any(getattr(loss, "student_layer_name", None) for loss in given)
    is_valid = projectors is None or (
        isinstance(projectors, dict)
        and all(
            name == "hidden" and reads and isinstance(layer, keras.layers.Layer)
            for name, layer in projectors.items()
        )
    )
    if not projectors:
        is_valid = None if projectors == [] else is_valid
    assert answer(lambda: arguments.check_projectors(projectors, terms), is_valid) == (
        projectors or {}
    )
