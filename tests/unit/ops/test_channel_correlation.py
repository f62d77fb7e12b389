"""Correlations between channels, and the energies computed from them."""

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

# Sums of at most some hundred float32 products of order 1.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}
# Fewer rows than channels, as many, and more.
SHAPES = [(2, 3), (4, 9), (5, 5), (32, 3)]
OF_PAIRS = ["channel_alignment", "cross_off_diagonal_energy"]
SCALARS = ["off_diagonal_energy", *OF_PAIRS]


def numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def correlation(x):
    return numpy(compiled_on_jax(ops.channel_correlation)(x.astype("float32")))


def cross_correlation(teacher, student):
    f = compiled_on_jax(ops.cross_correlation)
    return numpy(f(teacher.astype("float32"), student.astype("float32")))


def arguments(name, teacher, student):
    """The formula's arguments among the two."""
    return (teacher, student) if name in OF_PAIRS else (student,)


def reference_of_student(name, teacher):
    """The reference as a function of only the student's rows."""
    formula = getattr(reference, name)
    return lambda student: formula(*arguments(name, teacher, student))


@pytest.mark.parametrize("shape", SHAPES)
def test_correlation_matches_the_reference(shape):
    x = reference.samples(*shape)

    actual = correlation(x)

    assert actual.dtype == "float32"
    np.testing.assert_allclose(actual, reference.channel_correlation(x), **TOLERANCE)


@pytest.mark.parametrize("widths", [(4, 3), (2, 5), (6, 1)])
def test_cross_correlation_matches_the_reference(widths):
    teacher = reference.samples(8, widths[0])
    student = reference.samples(8, widths[1], seed=1)

    actual = cross_correlation(teacher, student)

    expected = reference.cross_correlation(teacher, student)
    np.testing.assert_allclose(actual, expected, **TOLERANCE)


@pytest.mark.parametrize("name", SCALARS)
@pytest.mark.parametrize("shape", SHAPES)
def test_energies_match_the_reference(name, shape):
    rows = arguments(name, reference.samples(*shape, seed=1), reference.samples(*shape))

    actual = value(getattr(ops, name), *rows)

    expected = getattr(reference, name)(*rows)
    np.testing.assert_allclose(actual, expected, **TOLERANCE)


@pytest.mark.parametrize("name", SCALARS)
def test_epsilon_is_added_to_the_variances(name):
    rows = arguments(name, reference.samples(7, 3, seed=1), reference.samples(7, 3))

    actual = float(getattr(ops, name)(*rows, epsilon=0.5))

    expected = getattr(reference, name)(*rows, 0.5)
    np.testing.assert_allclose(actual, expected, **TOLERANCE)


# By hand, with epsilon = 144: a channel of ±9 has variance 81, sqrt(81 + 144) = 15,
# and standardizes to ±0.6; one of ±16 has 256, sqrt(256 + 144) = 20, ±0.8.


def test_correlation_of_two_channels_by_hand():
    x = np.array([[9.0, 16.0], [-9.0, -16.0]])

    actual = numpy(ops.channel_correlation(x, epsilon=144.0))

    # 2 · 0.6 · 0.6 / 2, 2 · 0.6 · 0.8 / 2, 2 · 0.8 · 0.8 / 2
    np.testing.assert_allclose(actual, [[0.36, 0.48], [0.48, 0.64]], rtol=1e-6)


def test_off_diagonal_energy_of_two_channels_by_hand():
    x = np.array([[9.0, 16.0], [-9.0, -16.0]])

    actual = float(ops.off_diagonal_energy(x, epsilon=144.0))

    # (0.48² + 0.48²) / (2 · 1)
    np.testing.assert_allclose(actual, 0.2304, rtol=1e-6)


def test_cross_terms_of_two_channels_by_hand():
    teacher = np.array([[9.0, 16.0], [-9.0, -16.0]])  # ±0.6, ±0.8
    student = np.array([[16.0, -9.0], [-16.0, 9.0]])  # ±0.8, ∓0.6

    cross = numpy(ops.cross_correlation(teacher, student, epsilon=144.0))
    alignment = float(ops.channel_alignment(teacher, student, epsilon=144.0))
    energy = float(ops.cross_off_diagonal_energy(teacher, student, epsilon=144.0))

    np.testing.assert_allclose(cross, [[0.48, -0.36], [0.64, -0.48]], rtol=1e-6)
    # ((1 - 0.48)² + (1 + 0.48)²) / 2 = (0.2704 + 2.1904) / 2
    np.testing.assert_allclose(alignment, 1.2304, rtol=1e-6)
    # (0.36² + 0.64²) / 2 = (0.1296 + 0.4096) / 2
    np.testing.assert_allclose(energy, 0.2696, rtol=1e-6)


def test_uncorrelated_channels_have_no_energy():
    x = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])

    assert value(ops.off_diagonal_energy, x) < 1e-12


def test_copies_of_one_channel_have_energy_one():
    channel = reference.samples(8, 1)
    x = np.concatenate([channel, -2.0 * channel, 5.0 * channel + 1.0], axis=1)

    # epsilon reduces a correlation between channels of variance near 1 by 2e-5.
    np.testing.assert_allclose(value(ops.off_diagonal_energy, x), 1.0, rtol=1e-4)


def test_single_channel_has_no_energy():
    assert value(ops.off_diagonal_energy, reference.samples(5, 1)) == 0.0


def test_correlation_is_symmetric_with_a_unit_diagonal():
    actual = correlation(reference.samples(8, 5))

    np.testing.assert_allclose(actual, actual.T, atol=1e-6)
    # variance / (variance + 1e-5), for variances near 1
    np.testing.assert_allclose(np.diagonal(actual), 1.0, atol=1e-4)


def test_permuting_channels_permutes_the_correlation_and_keeps_the_energy():
    x, order = reference.samples(8, 5), [3, 0, 4, 1, 2]

    np.testing.assert_allclose(
        correlation(x[:, order]),
        correlation(x)[order][:, order],
        **TOLERANCE,
    )
    np.testing.assert_allclose(
        value(ops.off_diagonal_energy, x[:, order]),
        value(ops.off_diagonal_energy, x),
        **TOLERANCE,
    )


@pytest.mark.parametrize("name", SCALARS)
def test_order_of_samples_does_not_matter(name):
    teacher, student = reference.samples(7, 3), reference.samples(7, 3, seed=1)
    order = np.random.default_rng(0).permutation(7)

    f = getattr(ops, name)
    ordered = value(f, *arguments(name, teacher, student))
    permuted = value(f, *arguments(name, teacher[order], student[order]))

    np.testing.assert_allclose(permuted, ordered, **TOLERANCE)


@pytest.mark.parametrize("name", SCALARS)
def test_scale_and_shift_of_a_channel_do_not_matter(name):
    teacher, student = reference.samples(7, 3), reference.samples(7, 3, seed=1)
    moved = student * [2.0, 30.0, 0.5] + [1.0, -5.0, 0.0]

    # epsilon reduces a correlation by 1e-5 / variance, here at most 1e-4.
    np.testing.assert_allclose(
        value(getattr(ops, name), *arguments(name, teacher, moved)),
        value(getattr(ops, name), *arguments(name, teacher, student)),
        rtol=5e-4,
    )


def test_correlation_with_itself_is_the_correlation():
    x = reference.samples(8, 4)

    np.testing.assert_allclose(
        cross_correlation(x, x),
        correlation(x),
        **TOLERANCE,
    )


def test_exchanging_teacher_and_student_transposes_the_cross_correlation():
    teacher, student = reference.samples(8, 4), reference.samples(8, 3, seed=1)

    np.testing.assert_allclose(
        cross_correlation(student, teacher),
        cross_correlation(teacher, student).T,
        **TOLERANCE,
    )


@pytest.mark.parametrize(("sign", "expected"), [(1.0, 0.0), (-1.0, 4.0)])
def test_alignment_runs_from_following_to_opposing(sign, expected):
    teacher = reference.samples(7, 3)

    actual = value(ops.channel_alignment, teacher, sign * 3.0 * teacher + 1.0)

    np.testing.assert_allclose(actual, expected, atol=1e-4)  # epsilon: 2 · 1e-5 of 4


def test_alignment_and_energy_partition_the_cross_correlation():
    teacher, student = reference.samples(7, 3), reference.samples(7, 3, seed=1)
    cross = reference.cross_correlation(teacher, student)

    energy = value(ops.cross_off_diagonal_energy, teacher, student)

    expected = ((cross**2).sum() - (np.diagonal(cross) ** 2).sum()) / 3
    np.testing.assert_allclose(energy, expected, **TOLERANCE)


def degenerate(case, seed=0):
    x = reference.samples(7, 3, seed=seed)
    if case == "constant channel":
        x[:, 1] = 0.5
    elif case == "constant channels":
        x[:, 1:] = [0.5, -3.0]
    elif case == "identical rows":
        x[:] = x[0]
    elif case == "identical channels":
        x[:] = x[:, :1]
    elif case == "zeros":
        x[:] = 0.0
    elif case == "huge":
        x *= 1e18
    elif case == "tiny":
        x *= 1e-18
    return x.astype("float32").astype("float64")


CASES = [
    "random",
    "constant channel",
    "constant channels",
    "identical rows",
    "identical channels",
    "zeros",
    "huge",
    "tiny",
]


@pytest.mark.parametrize("name", SCALARS)
@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_match_the_reference(name, case):
    teacher, student = reference.samples(7, 3, seed=1), degenerate(case)

    actual, gradients = value_and_gradient(
        getattr(ops, name), *arguments(name, teacher, student)
    )

    f = reference_of_student(name, teacher)
    np.testing.assert_allclose(actual, f(student), **TOLERANCE)
    scale = 1e18 if case == "huge" else 1.0  # the gradient scales as 1 / scale
    expected = reference.finite_difference(f, student, step=1e-6 * scale)
    assert_gradient_close(scale * gradients[-1], scale * expected)


@pytest.mark.parametrize("name", OF_PAIRS)
@pytest.mark.parametrize("case", CASES)
def test_degenerate_teacher_gives_the_reference_value_and_gradient(name, case):
    teacher, student = degenerate(case), reference.samples(7, 3, seed=1)

    actual, gradients = value_and_gradient(
        getattr(ops, name), *arguments(name, teacher, student)
    )

    f = reference_of_student(name, teacher)
    np.testing.assert_allclose(actual, f(student), **TOLERANCE)
    assert_gradient_close(gradients[-1], reference.finite_difference(f, student))
    assert np.isfinite(gradients[0]).all()


@pytest.mark.parametrize("name", OF_PAIRS)
def test_gradient_also_reaches_the_teacher_rows(name):
    teacher, student = reference.samples(7, 3), reference.samples(7, 3, seed=1)

    _, gradients = value_and_gradient(getattr(ops, name), teacher, student)

    expected = reference.finite_difference(
        lambda teacher: getattr(reference, name)(teacher, student), teacher
    )
    assert_gradient_close(gradients[0], expected)


@pytest.mark.parametrize("constant", [0.1, 1234.567, 1e18 / 3])
def test_constant_channel_correlates_zero(constant):
    x = reference.samples(11, 3)
    x[:, 1] = constant

    actual = correlation(x)

    np.testing.assert_allclose(actual[1], 0.0, atol=1e-6)
    np.testing.assert_allclose(actual[:, 1], 0.0, atol=1e-6)


def test_constant_student_channel_is_unaligned():
    teacher, student = reference.samples(11, 2), reference.samples(11, 2)
    student[:, 1] = 1234.567

    actual = value(ops.channel_alignment, teacher, student)

    # Channel 0 follows, (1 - 1)²; channel 1 cannot, (1 - 0)². The mean is 0.5.
    np.testing.assert_allclose(actual, 0.5, atol=1e-4)


@pytest.mark.parametrize("name", SCALARS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_equals_the_reference_of_the_rounded_rows(name, dtype):
    # Values up to about 3e4, whose squares overflow float16.
    teacher, student = (
        keras.ops.cast(1e4 * reference.samples(7, 3, seed=seed), dtype)
        for seed in (0, 1)
    )
    rows = arguments(name, teacher, student)

    actual = compiled_on_jax(getattr(ops, name))(*rows)

    assert keras.backend.standardize_dtype(actual.dtype) == "float32"
    rounded = [numpy(keras.ops.cast(x, "float32")).astype("float64") for x in rows]
    expected = getattr(reference, name)(*rounded)
    np.testing.assert_allclose(float(actual), expected, **TOLERANCE)


@pytest.mark.parametrize("name", SCALARS)
def test_gradient_through_half_precision_is_finite(name):
    teacher, student = reference.samples(7, 3), reference.samples(7, 3, seed=1)
    teacher, student = 1e4 * teacher, 1e4 * student

    def of_halves(*rows):
        return getattr(ops, name)(*(keras.ops.cast(x, "float16") for x in rows))

    _, gradients = value_and_gradient(of_halves, *arguments(name, teacher, student))

    assert np.isfinite(gradients).all()


@pytest.mark.parametrize("name", SCALARS)
def test_compiled_value_and_gradient_match_the_reference(name):
    teacher, student = reference.samples(7, 3), reference.samples(7, 3, seed=1)
    rows = arguments(name, teacher, student)

    actual, gradients = value_and_gradient(getattr(ops, name), *rows, compiled=True)

    f = reference_of_student(name, teacher)
    np.testing.assert_allclose(actual, f(student), **TOLERANCE)
    assert_gradient_close(gradients[-1], reference.finite_difference(f, student))


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="unknown sizes are TensorFlow's"
)
# One row has no spread: no channels correlate, and none follows its teacher's.
@pytest.mark.parametrize(
    ("name", "expected"), list(zip(SCALARS, [0, 1, 0], strict=True))
)
def test_batch_of_one_found_at_run_time_is_finite(name, expected):
    row = reference.samples(1, 4)
    rows = arguments(name, reference.samples(1, 4, seed=1), row)

    actual, gradients = value_and_gradient(getattr(ops, name), *rows, compiled=True)

    assert actual == expected
    np.testing.assert_array_equal(gradients, np.zeros_like(rows))


@pytest.mark.parametrize("name", ["off_diagonal_energy", "channel_correlation"])
@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_rows_raise(name, n):
    with pytest.raises(ValueError, match=rf"2 rows.*rows.shape=\({n}, 3\)"):
        getattr(ops, name)(np.zeros((n, 3), "float32"))


@pytest.mark.parametrize("name", ["cross_correlation", *OF_PAIRS])
def test_one_pair_of_rows_raises(name):
    row = reference.samples(1, 3)
    with pytest.raises(ValueError, match=r"2 rows.*teacher_rows.shape=\(1, 3\)"):
        getattr(ops, name)(row, row)


@pytest.mark.parametrize("name", ["off_diagonal_energy", "channel_correlation"])
@pytest.mark.parametrize("shape", [(4,), (4, 2, 3)])
def test_wrong_rank_raises(name, shape):
    with pytest.raises(ValueError, match=r"shape \(n, c\).*keras_dskd.ops.rows"):
        getattr(ops, name)(reference.samples(*shape))


@pytest.mark.parametrize("name", ["cross_correlation", *OF_PAIRS])
def test_wrong_rank_of_the_student_rows_raises(name):
    with pytest.raises(ValueError, match=r"`student_rows` of shape \(n, c\)"):
        getattr(ops, name)(reference.samples(4, 3), reference.samples(4, 2, 3))


@pytest.mark.parametrize("name", ["cross_correlation", *OF_PAIRS])
def test_different_samples_raise(name):
    with pytest.raises(ValueError, match=r"same samples.*\(4, 3\).*\(5, 3\)"):
        getattr(ops, name)(reference.samples(4, 3), reference.samples(5, 3))


@pytest.mark.parametrize("name", OF_PAIRS)
@pytest.mark.parametrize("width", [1, 2])
def test_different_widths_raise(name, width):
    message = r"3 teacher channels and \d student channels.*Dense\(3\)"
    with pytest.raises(ValueError, match=message):
        getattr(ops, name)(reference.samples(4, 3), reference.samples(4, width))
