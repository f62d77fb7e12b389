"""Losses of outputs: any heads, ranks, axes, weights and dtypes."""

import numpy as np
import reference
from fuzz import arrays
from fuzz.formulas import DTYPES, SEEDS, numpy
from fuzz.fuzzing import fuzzed
from fuzz.verdict import answer
from hypothesis import strategies as st

from keras_dskd import ops

LENGTHS = st.sampled_from([1, 2, 3])
SHAPES = st.lists(LENGTHS, min_size=1, max_size=4).map(tuple)
#: Two shapes: equal, equal up to a last axis of length 1, or any.
PAIRS = (
    SHAPES.map(lambda shape: (shape, shape))
    | SHAPES.map(lambda shape: (shape, (*shape, 1)))
    | SHAPES.map(lambda shape: ((*shape, 1), shape))
    | st.tuples(SHAPES, SHAPES)
)
#: Kinds whose softmax and squares are accurate in float32.
KINDS = st.sampled_from(["normal", "integers", "zeros", "constant", "duplicates"])
TEMPERATURES = st.sampled_from([0.5, 1, 4.0, 20.0])


def drawn(shapes, kinds, dtypes, seed):
    """Arrays as the library receives them, and in float64."""
    pairs = [
        (arrays.as_dtype(arrays.numbers(shape, kind, seed + i), dtype), dtype)
        for i, (shape, kind, dtype) in enumerate(
            zip(shapes, kinds, dtypes, strict=True)
        )
    ]
    given = [arrays.passed(x, dtype, "numpy") for (x, _), dtype in pairs]
    return given, [exact for (_, exact), _ in pairs]


def columns(*exact):
    """The arrays with a last axis if another has one, or `None` if they do not fit."""
    rank = max(2, *(x.ndim for x in exact))
    fitted = [x[..., None] if x.ndim == rank - 1 else x for x in exact]
    return fitted if len({x.shape for x in fitted}) == 1 else None


def assert_mean(actual, each, weight, temperature=1.0, size=1.0):
    """Asserts the mean of weighted values."""
    if weight is not None:
        each = each * weight.reshape(weight.shape + (1,) * (each.ndim - weight.ndim))
    atol = 2e-6 * temperature**2 * max(1.0, size)
    np.testing.assert_allclose(numpy(actual), np.mean(each), rtol=1e-4, atol=atol)


def weight_of(shape, axes, seed):
    """Weights along the first axes, or `None`."""
    if not axes:
        return None
    return np.abs(reference.samples(*shape[:axes], seed=seed)).astype("float32")


@fuzzed(
    "outputs",
    cases=30,
    share=0.1,
    name=st.sampled_from(["binary_soft_targets", "regression_targets"]),
    shapes=PAIRS,
    kinds=st.tuples(KINDS, KINDS),
    dtypes=st.tuples(DTYPES, DTYPES),
    temperature=TEMPERATURES,
    axes=st.sampled_from([0, 1, 2]),
    seed=SEEDS,
)
def test_values_one_by_one(name, shapes, kinds, dtypes, temperature, axes, seed):
    given, exact = drawn(shapes, kinds, dtypes, seed)
    fitted = columns(*exact)
    axes = min(axes, *map(len, shapes))
    weight = weight_of(shapes[0], axes, seed)
    is_binary = name == "binary_soft_targets"
    options = {"temperature": temperature} if is_binary else {}
    actual = answer(
        lambda: getattr(ops, name)(*given, sample_weight=weight, **options),
        valid=fitted is not None,
    )
    formula = getattr(reference, name)
    each = np.array(
        [
            formula(t, s, *options.values())
            for t, s in zip(*map(np.ravel, fitted), strict=True)
        ]
    ).reshape(fitted[0].shape)
    assert_mean(actual, each, weight, temperature if is_binary else 1.0)


@fuzzed(
    "outputs",
    cases=30,
    share=0.1,
    name=st.sampled_from(["hard_targets", "soft_targets"]),
    shapes=PAIRS,
    kinds=st.tuples(KINDS, KINDS),
    dtypes=st.tuples(DTYPES, DTYPES),
    axis=st.sampled_from([-3, -2, -1, 0, 1, 2, 3]),
    axes=st.sampled_from([0, 1, 2]),
    seed=SEEDS,
)
def test_classes_along_any_axis(name, shapes, kinds, dtypes, axis, axes, seed):
    given, exact = drawn(shapes, kinds, dtypes, seed)
    rank = len(shapes[0])
    is_valid = shapes[0] == shapes[1] and axis != 0 and -rank < axis < rank
    is_valid = is_valid and shapes[0][axis] > 1
    rest = [
        side for i, side in enumerate(shapes[0]) if not is_valid or i != axis % rank
    ]
    weight = weight_of(rest, min(axes, len(rest)), seed)
    actual = answer(
        lambda: getattr(ops, name)(*given, sample_weight=weight, axis=axis), is_valid
    )
    last = [np.moveaxis(x, axis, -1) for x in exact]
    formula = getattr(reference, name)
    each = np.empty(rest)
    for i in np.ndindex(*rest):
        each[i] = formula(*(x[i][None] for x in last))
    size = max(1.0, *(np.abs(x).max() for x in exact))
    assert_mean(actual, each, weight, 4.0 if name == "soft_targets" else 1.0, size)


@fuzzed(
    "outputs",
    cases=20,
    share=0.05,
    shapes=PAIRS,
    label_shape=SHAPES | st.none(),
    margin=st.sampled_from([0.0, 0.3, 2]),
    kinds=st.tuples(KINDS, KINDS, KINDS),
    dtypes=st.tuples(DTYPES, DTYPES, DTYPES),
    seed=SEEDS,
)
def test_bounded_regression(shapes, label_shape, margin, kinds, dtypes, seed):
    shapes = (*shapes, shapes[0] if label_shape is None else label_shape)
    given, exact = drawn(shapes, kinds, dtypes, seed)
    fitted = columns(*exact)
    actual = answer(
        lambda: ops.bounded_regression(*given, margin), valid=fitted is not None
    )
    teacher, student, labels = fitted
    errors = [((x - labels) ** 2).mean(-1) for x in (teacher, student)]
    if np.isclose(errors[1] + margin, errors[0], rtol=1e-5).any():
        return  # Rounding decides which of equal errors is larger.
    expected = reference.bounded_regression(teacher, student, labels, margin)
    np.testing.assert_allclose(numpy(actual), expected, rtol=1e-4, atol=1e-6)


@fuzzed(
    "outputs",
    cases=20,
    share=0.05,
    shapes=PAIRS,
    kinds=st.tuples(KINDS, KINDS),
    dtypes=st.tuples(DTYPES, DTYPES),
    temperature=TEMPERATURES,
    axes=st.sampled_from([0, 1]),
    seed=SEEDS,
)
def test_channel_wise_distillation(shapes, kinds, dtypes, temperature, axes, seed):
    given, exact = drawn(shapes, kinds, dtypes, seed)
    shape = shapes[0]
    is_valid = shape == shapes[1] and len(shape) > 2 and max(shape[1:-1]) > 1
    weight = weight_of(shape, axes, seed)
    actual = answer(
        lambda: ops.channel_wise_distillation(*given, temperature, weight), is_valid
    )
    each = np.array(
        [
            reference.channel_wise_distillation(t[None], s[None], temperature)
            for t, s in zip(*exact, strict=True)
        ]
    )
    size = max(1.0, *(np.abs(x).max() / temperature for x in exact))
    assert_mean(actual, each, weight, temperature, size)


@fuzzed(
    "outputs",
    cases=20,
    share=0.05,
    shape=SHAPES,
    ignored=st.sampled_from([None, -1, 0, 1, 255]),
    label_dtype=st.sampled_from(["int32", "float32", "int64"]),
    form=st.sampled_from(["indices", "column", "one hot"]),
    kinds=st.tuples(KINDS, KINDS),
    dtypes=st.tuples(DTYPES, DTYPES),
    seed=SEEDS,
)
def test_an_ignored_class(shape, ignored, label_dtype, form, kinds, dtypes, seed):
    given, exact = drawn((shape, shape), kinds, dtypes, seed)
    classes = shape[-1]
    labels = np.random.default_rng(seed).integers(0, classes, shape[:-1])
    kept = np.ones(shape[:-1], bool)
    if ignored is not None:
        kept = labels != ignored
        if form != "one hot" and ignored not in (0, 1):
            kept = np.random.default_rng(seed + 1).random(shape[:-1]) < 0.6
            labels = np.where(kept, labels, ignored)
    passed = {
        "indices": labels,
        "column": labels[..., None],
        "one hot": np.eye(classes)[labels] if labels.max(initial=0) < classes else None,
    }[form].astype(label_dtype)
    actual = answer(
        lambda: ops.decoupled_distillation(*given, passed, ignore_class=ignored),
        valid=len(shape) > 1 and classes > 1,
    )
    rows = [x[kept] for x in exact]
    expected = (
        reference.decoupled_distillation(*rows, labels[kept]) if kept.any() else 0
    )
    # The weights 1 and 8, times T².
    size = max(1.0, *(np.abs(x).max() / 4 for x in exact))
    np.testing.assert_allclose(
        numpy(actual), expected, rtol=2e-4, atol=2e-6 * 16 * 9 * size
    )
