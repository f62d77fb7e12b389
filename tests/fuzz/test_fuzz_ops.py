"""Formulas of difficult arrays: the reference's value, or a clear error."""

import numpy as np
import reference
from fuzz import arrays
from fuzz.formulas import (
    COUNTS,
    DTYPES,
    FINITE,
    FORMS,
    OF_PAIRS,
    OF_ROWS,
    SEEDS,
    SIZES,
    WIDTHS,
    assert_right,
    numpy,
)
from fuzz.fuzzing import fuzzed
from fuzz.verdict import answer
from hypothesis import strategies as st

from keras_dskd import ops


@fuzzed(
    "ops",
    cases=20,
    share=0.06,
    name=st.sampled_from(sorted(OF_ROWS)),
    n=COUNTS,
    width=WIDTHS,
    kind=FINITE,
    dtype=DTYPES,
    form=FORMS,
    seed=SEEDS,
)
def test_formulas_of_rows(name, n, width, kind, dtype, form, seed):
    ours, formula, bounds = OF_ROWS[name]
    x, exact = arrays.as_dtype(arrays.numbers((n, width), kind, seed), dtype)
    actual = answer(lambda: ours(arrays.passed(x, dtype, form)), valid=True)
    assert_right(actual, formula, exact, bounds=bounds)


@fuzzed(
    "ops",
    cases=40,
    share=0.05,
    name=st.sampled_from(sorted(OF_PAIRS)),
    n=COUNTS,
    width=WIDTHS,
    kinds=st.tuples(FINITE, FINITE),
    dtypes=st.tuples(DTYPES, DTYPES),
    forms=st.tuples(FORMS, FORMS),
    seed=SEEDS,
)
def test_formulas_of_pairs(name, n, width, kinds, dtypes, forms, seed):
    ours, formula, bounds = OF_PAIRS[name]
    drawn = [
        arrays.as_dtype(arrays.numbers((n, width), kind, seed + i), dtype)
        for i, (kind, dtype) in enumerate(zip(kinds, dtypes, strict=True))
    ]
    given = [
        arrays.passed(x, dtype, form)
        for (x, _), dtype, form in zip(drawn, dtypes, forms, strict=True)
    ]
    actual = answer(lambda: ours(*given), valid=True)
    assert_right(actual, formula, *(exact for _, exact in drawn), bounds=bounds)


@fuzzed(
    "ops",
    cases=20,
    share=0.05,
    name=st.sampled_from(sorted(OF_ROWS)),
    shape=SIZES,
    dtype=DTYPES,
    form=FORMS,
    seed=SEEDS,
)
def test_any_shape_as_rows(name, shape, dtype, form, seed):
    """Another rank or fewer than two rows raise; zero channels may."""
    ours, formula, bounds = OF_ROWS[name]
    form = form if 0 not in shape else "numpy"  # a list has no shape (0, 2)
    x, exact = arrays.as_dtype(arrays.numbers(shape, seed=seed), dtype)
    is_valid = len(shape) == 2 and shape[0] >= 2
    # These need no second row.
    if name in ("standardize", "normalize"):
        is_valid = None
    elif is_valid and shape[1] == 0:
        is_valid = None
    actual = answer(lambda: ours(arrays.passed(x, dtype, form)), is_valid)
    if len(shape) == 2 and shape[0] and shape[1]:
        assert_right(actual, formula, exact, bounds=bounds)
    else:
        assert np.isfinite(numpy(actual)).all()


@fuzzed(
    "ops",
    cases=30,
    share=0.04,
    name=st.sampled_from(sorted(OF_PAIRS)),
    shapes=st.tuples(SIZES, SIZES)
    | st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 2),
    seed=SEEDS,
)
def test_any_shapes_as_a_pair(name, shapes, seed):
    ours, formula, bounds = OF_PAIRS[name]
    pair = [arrays.numbers(shape, seed=seed + i) for i, shape in enumerate(shapes)]
    first, second = shapes
    is_valid = len(first) == len(second) == 2 and first[0] == second[0] >= 2
    if name != "cross_correlation":
        is_valid = is_valid and first == second
    if is_valid and 0 in (first[1], second[1]):
        is_valid = None
    actual = answer(lambda: ours(*(x.astype("float32") for x in pair)), is_valid)
    if 0 in (first[1], second[1]):
        assert np.isfinite(numpy(actual)).all()
    else:
        assert_right(actual, formula, *pair, bounds=bounds)


FORMATS = ("channels_last", "channels_first")


@fuzzed(
    "ops",
    cases=25,
    share=0.04,
    shape=SIZES,
    rows=st.sampled_from(["pooled", "flattened", "positions"]),
    data_format=st.sampled_from(
        [None, *FORMATS, *FORMATS, *FORMATS, "channel_first", "NCHW", 1]
    ),
    kind=FINITE,
    dtype=DTYPES,
    form=FORMS,
    seed=SEEDS,
)
def test_rows(shape, rows, data_format, kind, dtype, form, seed):
    if kind == "scales" and not shape:
        kind = "normal"
    x, exact = arrays.as_dtype(arrays.numbers(shape, kind, seed), dtype)
    is_valid = len(shape) >= 2 and form != "list"
    if data_format not in (None, *FORMATS):
        # The format may be ignored for ranks that it does not affect.
        is_valid = None if is_valid and len(shape) < 4 else False
    if is_valid and 0 in shape:
        is_valid = None
    actual = answer(
        lambda: ops.rows(arrays.passed(x, dtype, form), rows, data_format), is_valid
    )
    actual = numpy(actual)
    if 0 in shape:
        assert actual.ndim == 2 and np.isfinite(actual).all()
        return
    expected = reference.rows(exact, rows, data_format == "channels_first")
    # The error of a mean of up to 3⁴ numbers is a few roundings of the largest.
    atol = 1e-6 * np.abs(exact).max() + 1e-37
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=atol)


LOGIT_SHAPES = st.sampled_from([(2, 2), (3, 5), (1, 3), (2, 3, 4), (2, 1, 2, 3)])
#: Kinds of logits whose softmax is accurate in float32.
LOGITS = st.sampled_from(
    ["normal", "integers", "zeros", "constant", "duplicates", "tiny", "denormal"]
)


@fuzzed(
    "ops",
    cases=20,
    share=0.03,
    shape=LOGIT_SHAPES,
    kinds=st.tuples(LOGITS, LOGITS),
    temperature=st.sampled_from([0.1, 1, 2.0, 4.0, 20.0]),
    scale=st.sampled_from([0.1, 1.0, 10.0, 100.0]),
    dtypes=st.tuples(DTYPES, DTYPES),
    seed=SEEDS,
)
def test_soft_targets(shape, kinds, temperature, scale, dtypes, seed):
    drawn = [
        arrays.as_dtype(scale * arrays.numbers(shape, kind, seed + i), dtype)
        for i, (kind, dtype) in enumerate(zip(kinds, dtypes, strict=True))
    ]
    given = [
        arrays.passed(x, dtype, "numpy")
        for (x, _), dtype in zip(drawn, dtypes, strict=True)
    ]
    actual = answer(lambda: ops.soft_targets(*given, temperature), valid=True)
    exact = [x for _, x in drawn]
    expected = reference.soft_targets(*exact, temperature)
    # Logarithms are differences of numbers as large as the logits over T, each with an
    # error of some 1e-7. Their mean is multiplied by T².
    size = max(1.0, *(np.abs(x).max() / temperature for x in exact))
    atol = 1e-6 * temperature**2 * size
    np.testing.assert_allclose(numpy(actual), expected, rtol=1e-4, atol=atol)


@fuzzed(
    "ops",
    cases=25,
    share=0.02,
    shapes=st.tuples(SIZES, SIZES) | SIZES.map(lambda shape: (shape, shape)),
    seed=SEEDS,
)
def test_any_shapes_as_logits(shapes, seed):
    pair = [arrays.numbers(shape, seed=seed + i) for i, shape in enumerate(shapes)]
    first, second = shapes
    is_valid = first == second and len(first) >= 2 and first[-1] >= 2
    if is_valid and 0 in first:
        is_valid = None
    given = [x.astype("float32") for x in pair]
    actual = numpy(answer(lambda: ops.soft_targets(*given), is_valid))
    if 0 in first:
        assert np.isfinite(actual), actual
    else:
        np.testing.assert_allclose(
            actual, reference.soft_targets(*pair), rtol=1e-4, atol=1e-5
        )
