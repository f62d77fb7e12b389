"""Soft targets: the teacher's softened class distribution."""

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

# Log-probabilities of order 1 are exact to 1e-7, and multiplied by T² <= 64.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.mark.parametrize("shape", [(1, 2), (4, 3), (6, 100), (2, 3, 5), (2, 2, 2, 4)])
def test_soft_targets_at_temperature_four_match_the_reference(shape):
    teacher = 3.0 * reference.samples(*shape)
    student = 3.0 * reference.samples(*shape, seed=1)

    actual = value(ops.soft_targets, teacher, student)

    expected = reference.soft_targets(teacher, student, temperature=4.0)
    np.testing.assert_allclose(actual, expected, **TOLERANCE)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 8])
def test_soft_targets_at_other_temperatures_match_the_reference(temperature):
    teacher, student = reference.samples(4, 3), reference.samples(4, 3, seed=1)

    actual = value(
        lambda teacher, student: ops.soft_targets(teacher, student, temperature),
        teacher,
        student,
    )

    expected = reference.soft_targets(teacher, student, temperature)
    np.testing.assert_allclose(actual, expected, **TOLERANCE)


@pytest.mark.parametrize(
    ("temperature", "expected"), [(1.0, 0.130812), (2.0, 0.523248)]
)
def test_soft_targets_of_two_classes_by_hand(temperature, expected):
    # Teacher (0, T log 3) / T: probabilities 1 / 4 and 3 / 4. Student: 1 / 2, 1 / 2.
    # KL = log(1 / 2) / 4 + 3 log(3 / 2) / 4 = -0.173287 + 0.304099 = 0.130812, · T².
    teacher = np.array([[0.0, temperature * np.log(3.0)]])
    student = np.array([[7.0, 7.0]])

    actual = float(ops.soft_targets(teacher, student, temperature))

    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_a_second_sample_without_divergence_halves_the_mean():
    teacher = np.array([[0.0, np.log(3.0)], [1.0, 5.0]])
    student = np.array([[0.0, 0.0], [1.0, 5.0]])

    actual = float(ops.soft_targets(teacher, student, temperature=1.0))

    np.testing.assert_allclose(actual, 0.130812 / 2, rtol=1e-5)


def test_identical_logits_have_no_divergence():
    logits = 5.0 * reference.samples(6, 4)

    assert value(ops.soft_targets, logits, logits) == 0.0


def test_constant_added_to_a_samples_logits_does_not_matter():
    teacher, student = reference.samples(4, 3), reference.samples(4, 3, seed=1)
    shift = np.array([[1.0], [-20.0], [0.0], [5.0]])

    original = value(ops.soft_targets, teacher, student)

    for moved in [(teacher + shift, student), (teacher, student - shift)]:
        np.testing.assert_allclose(
            value(ops.soft_targets, *moved), original, rtol=1e-4, atol=1e-5
        )  # logits of 20 are exact to 1e-6, times T²


def test_order_of_classes_does_not_matter():
    teacher, student = reference.samples(4, 3), reference.samples(4, 3, seed=1)
    order = [2, 0, 1]

    np.testing.assert_allclose(
        value(ops.soft_targets, teacher[:, order], student[:, order]),
        value(ops.soft_targets, teacher, student),
        **TOLERANCE,
    )


def test_two_half_batches_average_to_the_whole():
    teacher, student = reference.samples(8, 3), reference.samples(8, 3, seed=1)

    halves = [
        value(ops.soft_targets, teacher[part], student[part])
        for part in (slice(4), slice(4, 8))
    ]

    np.testing.assert_allclose(
        np.mean(halves), value(ops.soft_targets, teacher, student), **TOLERANCE
    )


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("shape", [(4, 3), (1, 2), (2, 3, 4)])
def test_gradients_match_finite_differences(shape, compiled):
    teacher, student = reference.samples(*shape), reference.samples(*shape, seed=1)

    _, gradients = value_and_gradient(
        ops.soft_targets, teacher, student, compiled=compiled
    )

    expected = [
        reference.finite_difference(
            lambda teacher: reference.soft_targets(teacher, student), teacher
        ),
        reference.finite_difference(
            lambda student: reference.soft_targets(teacher, student), student
        ),
    ]
    for actual, finite_difference in zip(gradients, expected, strict=True):
        assert_gradient_close(actual, finite_difference)


def test_gradient_for_the_student_by_hand():
    # d/ds = T (softmax(s / T) - softmax(t / T)) / n: T = 2, n = 1,
    # 2 · (1/2 - 1/4) = 0.5 and 2 · (1/2 - 3/4) = -0.5.
    teacher, student = np.array([[0.0, 2.0 * np.log(3.0)]]), np.zeros((1, 2))

    _, gradients = value_and_gradient(
        lambda t, s: ops.soft_targets(t, s, temperature=2.0), teacher, student
    )

    np.testing.assert_allclose(gradients[1], [[0.5, -0.5]], rtol=1e-5)


@pytest.mark.parametrize("scale", [1e18, 1e-18])
def test_extreme_logits_have_the_reference_value_and_gradient(scale):
    teacher, student = (
        (scale * reference.samples(4, 3, seed=seed)).astype("float32")
        for seed in (0, 1)
    )

    actual, gradients = value_and_gradient(ops.soft_targets, teacher, student)

    def f(student):
        return reference.soft_targets(teacher, student)

    np.testing.assert_allclose(actual, f(student), **TOLERANCE)
    # At 1e18 the distributions are one-hot and the loss is linear; at 1e-18 they are
    # uniform, and the loss is smooth on the scale of 1.
    step = 1e-6 * max(scale, 1.0)
    assert_gradient_close(gradients[1], reference.finite_difference(f, student, step))
    assert np.isfinite(gradients[0]).all()


@pytest.mark.parametrize("constant", [0.0, 3.0, 1e18])
def test_constant_logits_have_no_divergence_and_no_gradient(constant):
    logits = np.full((4, 3), constant)

    actual, gradients = value_and_gradient(ops.soft_targets, logits, logits)

    np.testing.assert_allclose(actual, 0.0, atol=1e-5)
    np.testing.assert_allclose(gradients, np.zeros((2, 4, 3)), atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_equals_the_reference_of_the_rounded_logits(dtype):
    teacher, student = (
        keras.ops.cast(20.0 * reference.samples(6, 4, seed=seed), dtype)
        for seed in (0, 1)
    )

    actual = compiled_on_jax(ops.soft_targets)(teacher, student)

    assert keras.backend.standardize_dtype(actual.dtype) == "float32"
    rounded = [
        keras.ops.convert_to_numpy(keras.ops.cast(x, "float32"))
        for x in (teacher, student)
    ]
    expected = reference.soft_targets(*rounded)
    np.testing.assert_allclose(float(actual), expected, **TOLERANCE)


def test_gradient_through_half_precision_is_finite():
    _, gradients = value_and_gradient(
        lambda t, s: ops.soft_targets(
            keras.ops.cast(t, "float16"), keras.ops.cast(s, "float16")
        ),
        1e4 * reference.samples(6, 4),
        1e4 * reference.samples(6, 4, seed=1),
    )

    assert np.isfinite(gradients).all()


@pytest.mark.parametrize("shape", [(4, 2), (4, 1), (5, 3), (4, 1, 3)])
def test_different_shapes_raise(shape):
    message = r"same shape .* teacher_logits.shape=\(4, 3\), student_logits.shape="
    with pytest.raises(ValueError, match=message):
        ops.soft_targets(reference.samples(4, 3), reference.samples(*shape))


@pytest.mark.parametrize("shape", [(4, 1), (4,)])
def test_single_class_raises(shape):
    logits = reference.samples(*shape)
    with pytest.raises(ValueError, match="at least 2 classes.*use .*BinarySoftTargets"):
        ops.soft_targets(logits, logits)


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan")])
def test_temperature_that_is_not_positive_raises(temperature):
    logits = reference.samples(4, 3)
    with pytest.raises(ValueError, match=rf"temperature={temperature}"):
        ops.soft_targets(logits, logits, temperature)
