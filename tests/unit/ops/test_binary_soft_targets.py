"""Binary soft targets: the teacher's softened probability of each label."""

import keras
import numpy as np
import pytest
import reference
from gradients import assert_gradient_close, value, value_and_gradient

from keras_dskd import ops

TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}


def binary(temperature):
    return lambda t, s: ops.binary_soft_targets(t, s, temperature)


@pytest.mark.parametrize("shape", [(5,), (5, 1), (4, 3), (2, 3, 5), (2, 2, 2, 4)])
def test_value_and_gradients_match_the_reference(shape):
    teacher = 3.0 * reference.samples(*shape)
    student = 3.0 * reference.samples(*shape, seed=1)

    actual, gradients = value_and_gradient(ops.binary_soft_targets, teacher, student)

    formula = reference.binary_soft_targets
    np.testing.assert_allclose(actual, formula(teacher, student), **TOLERANCE)
    expected = [
        reference.finite_difference(lambda x: formula(x, student), teacher),
        reference.finite_difference(lambda x: formula(teacher, x), student),
    ]
    for gradient, difference in zip(gradients, expected, strict=True):
        assert_gradient_close(gradient, difference)


def test_value_and_gradient_by_hand():
    # Teacher T log 3: probability 3/4. Student 0: 1/2. KL = 0.75 log 1.5 + 0.25 log 0.5
    # = 0.130812. Gradient: T (1/2 - 3/4).
    actual, gradients = value_and_gradient(
        binary(2.0), np.array([2.0 * np.log(3.0)]), np.zeros(1)
    )
    np.testing.assert_allclose(actual, 4 * 0.130812, rtol=1e-5)
    np.testing.assert_allclose(gradients[1], [-0.5], rtol=1e-5)


def test_one_label_equals_soft_targets_of_two_classes():
    teacher, student = reference.samples(6, 1), reference.samples(6, 1, seed=1)
    two = [np.concatenate([x, 0 * x], axis=1) for x in (teacher, student)]
    np.testing.assert_allclose(
        value(ops.binary_soft_targets, teacher, student),
        value(ops.soft_targets, *two),
        **TOLERANCE,
    )


def test_labels_do_not_exclude_one_another():
    """A constant added to all labels matters, in contrast to `soft_targets`."""
    every, none = np.full((1, 4), 8.0), np.full((1, 4), -8.0)
    assert value(ops.soft_targets, every, none) == 0.0
    np.testing.assert_allclose(
        value(ops.binary_soft_targets, every, none),
        reference.binary_soft_targets(every, none),
        **TOLERANCE,
    )
    assert reference.binary_soft_targets(every, none) > 10


@pytest.mark.parametrize("temperature", [0.01, 1.0, 4.0])
@pytest.mark.parametrize("logit", [80.0, 1e4, 1e18])
def test_saturated_logits_have_the_reference_value_and_gradient(logit, temperature):
    teacher = np.array([logit, -logit, logit, -logit, logit, 0.0])
    student = np.array([logit, -logit, -logit, logit, 0.0, logit])

    actual, gradients = value_and_gradient(binary(temperature), teacher, student)

    expected = reference.binary_soft_targets(teacher, student, temperature)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    # d/ds = T (σ(s/T) - σ(t/T)) / n, with probabilities of 0, 1/2 and 1.
    probability = [0.5 + 0.5 * np.sign(x) for x in (teacher, student)]
    expected = temperature * (probability[1] - probability[0]) / 6
    np.testing.assert_allclose(gradients[1], expected, rtol=1e-5, atol=1e-7)
    assert np.isfinite(gradients[0]).all()


@pytest.mark.parametrize("temperature", [100, 1000])
def test_high_temperatures_stay_accurate(temperature):
    teacher, student = reference.samples(20, 5), reference.samples(20, 5, seed=1)
    actual, gradients = value_and_gradient(binary(temperature), teacher, student)
    # Log-probabilities of 0.7 are exact to 6e-8, and differ by 1e-3.
    expected = reference.binary_soft_targets(teacher, student, temperature)
    np.testing.assert_allclose(actual, expected, rtol=1e-3)
    # d/ds = T (σ(s/T) - σ(t/T)) / n
    probability = [1 / (1 + np.exp(-x / temperature)) for x in (teacher, student)]
    expected = temperature * (probability[1] - probability[0]) / 100
    atol = 1e-3 * np.abs(expected).max()
    np.testing.assert_allclose(gradients[1], expected, rtol=1e-3, atol=atol)


def test_nearly_equal_logits_stay_accurate():
    teacher = reference.samples(20, 5)
    student = (teacher + 0.01 * reference.samples(20, 5, seed=1)).astype("float32")
    actual = value(ops.binary_soft_targets, teacher, student)
    expected = reference.binary_soft_targets(teacher, student.astype("float64"))
    np.testing.assert_allclose(actual, expected, rtol=1e-3)
    assert value(ops.binary_soft_targets, teacher, teacher) == 0.0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_equals_the_reference_of_the_rounded_logits(dtype):
    given = [
        keras.ops.cast(20.0 * reference.samples(6, 4, seed=seed), dtype)
        for seed in (0, 1)
    ]
    actual = ops.binary_soft_targets(*given)
    assert keras.backend.standardize_dtype(actual.dtype) == "float32"
    rounded = [keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")) for x in given]
    expected = reference.binary_soft_targets(*rounded)
    np.testing.assert_allclose(float(actual), expected, **TOLERANCE)


def test_a_vector_and_a_column_are_compared_sample_by_sample():
    teacher, student = reference.samples(7), reference.samples(7, seed=1)
    expected = reference.binary_soft_targets(teacher, student)
    for pair in [(teacher, student[:, None]), (teacher[:, None], student)]:
        actual = value(ops.binary_soft_targets, *pair)
        np.testing.assert_allclose(actual, expected, **TOLERANCE)


@pytest.mark.parametrize("shape", [(5, 3), (5, 1, 1), (4, 5), (1, 5), (3, 1)])
def test_other_shapes_raise(shape):
    message = r"same shape .* teacher_logits.shape=\(5,\), student_logits.shape="
    with pytest.raises(ValueError, match=message):
        ops.binary_soft_targets(reference.samples(5), reference.samples(*shape))


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_empty_outputs_raise(shape):
    with pytest.raises(ValueError, match="at least one sample and one value"):
        ops.binary_soft_targets(np.zeros(shape), np.zeros(shape))


@pytest.mark.parametrize("weight_shape", [(4,), (4, 3), (4, 3, 5)])
def test_weights_line_up_with_the_first_axes(weight_shape):
    teacher, student = reference.samples(4, 3, 5), reference.samples(4, 3, 5, seed=1)
    weight = np.abs(reference.samples(*weight_shape, seed=2)).astype("float32")
    actual = value(
        lambda t, s: ops.binary_soft_targets(t, s, sample_weight=weight),
        teacher,
        student,
    )
    each = np.array(
        [
            reference.binary_soft_targets(t, s)
            for t, s in zip(teacher.ravel(), student.ravel(), strict=True)
        ]
    ).reshape(4, 3, 5)
    weight = weight.reshape(weight_shape + (1,) * (3 - len(weight_shape)))
    np.testing.assert_allclose(actual, np.mean(weight * each), **TOLERANCE)


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), 2000])
def test_temperature_out_of_range_raises(temperature):
    logits = reference.samples(4, 3)
    with pytest.raises(ValueError, match=f"temperature={temperature}"):
        ops.binary_soft_targets(logits, logits, temperature)
