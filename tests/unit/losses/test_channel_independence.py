"""Loss: channels that are independent of one another."""

import keras
import numpy as np
import pytest
import reference
from gradients import assert_gradient_close, compiled_on_jax, value_and_gradient
from stock_distiller import distillation_loss_of_an_epoch, model

from keras_dskd.losses import ChannelIndependence

# Sums of at most some hundred float32 products of order 1.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}


def features(*shape):
    return reference.samples(6, *shape), reference.samples(6, *shape, seed=1)


@pytest.mark.parametrize(
    ("shape", "weight"), [((4,), 0.0), ((4,), 1.5), ((3, 4), 0.5), ((2, 3, 4), 0.02)]
)
def test_guided_loss_matches_the_reference_and_the_teacher_gets_no_gradient(
    shape, weight
):
    teacher, student = features(*shape)
    loss = ChannelIndependence(off_diagonal_weight=weight)

    actual, gradients = value_and_gradient(loss.compute_loss, teacher, student)

    def f(student):
        return reference.guided_channel_independence(
            reference.rows(teacher), reference.rows(student), weight
        )

    np.testing.assert_allclose(actual, f(student), **TOLERANCE)
    assert_gradient_close(gradients[1], reference.finite_difference(f, student))
    np.testing.assert_array_equal(gradients[0], 0.0)


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4)])
def test_own_loss_matches_the_reference_and_the_teacher_gets_no_gradient(shape):
    teacher, student = features(*shape)
    loss = ChannelIndependence(target="self")

    actual, gradients = value_and_gradient(loss.compute_loss, teacher, student)

    def f(student):
        return reference.off_diagonal_energy(reference.rows(student))

    np.testing.assert_allclose(actual, f(student), **TOLERANCE)
    assert_gradient_close(gradients[1], reference.finite_difference(f, student))
    np.testing.assert_array_equal(gradients[0], 0.0)


def test_guided_loss_by_hand():
    # epsilon = 144: ±9 standardises to 9 / sqrt(81 + 144) = ±0.6, ±16 to ±0.8.
    teacher = np.array([[9.0, 16.0], [-9.0, -16.0]])
    student = np.array([[16.0, -9.0], [-16.0, 9.0]])
    loss = ChannelIndependence(off_diagonal_weight=0.5, epsilon=144.0)

    # C = [[0.48, -0.36], [0.64, -0.48]]; (0.52² + 1.48²) / 2 = 1.2304;
    # 0.5 (0.36² + 0.64²) / 2 = 0.1348.
    np.testing.assert_allclose(
        float(loss.compute_loss(teacher, student)), 1.3652, rtol=1e-6
    )


def test_positions_may_differ():
    teacher, student = reference.samples(6, 2, 2, 4), reference.samples(6, 5, 4, seed=1)

    actual = float(ChannelIndependence().compute_loss(teacher, student))

    expected = reference.guided_channel_independence(
        reference.rows(teacher), reference.rows(student)
    )
    np.testing.assert_allclose(actual, expected, **TOLERANCE)


def test_own_loss_takes_a_teacher_of_any_width():
    student = reference.samples(6, 4)

    actual = float(
        ChannelIndependence(target="self").compute_loss(
            reference.samples(6, 9), student
        )
    )

    expected = reference.off_diagonal_energy(student)
    np.testing.assert_allclose(actual, expected, **TOLERANCE)


@pytest.mark.parametrize("target", ["teacher", "self"])
def test_half_precision_features_equal_the_reference_of_the_rounded(target):
    # Squares of 1e4 overflow float16.
    teacher, student = (
        keras.ops.cast(1e4 * feature, "float16") for feature in features(3, 4)
    )

    loss = ChannelIndependence(target=target)
    actual = float(compiled_on_jax(loss.compute_loss)(teacher, student))

    teacher, student = (
        reference.rows(keras.ops.convert_to_numpy(x)) for x in (teacher, student)
    )
    expected = (
        reference.off_diagonal_energy(student)
        if target == "self"
        else reference.guided_channel_independence(teacher, student)
    )
    np.testing.assert_allclose(actual, expected, **TOLERANCE)


def test_stock_distiller_reads_the_named_layers():
    value, features = distillation_loss_of_an_epoch(
        ChannelIndependence("teacher_feature", "student_feature"),
        model("teacher"),
        model("student"),
    )

    expected = reference.guided_channel_independence(
        features["teacher_feature"], features["student_feature"]
    )
    final = reference.guided_channel_independence(
        features["teacher_logits"], features["student_logits"]
    )
    assert abs(expected - final) > 1e-3
    np.testing.assert_allclose(value, expected, rtol=1e-4)  # tanh and Dense in float32


def test_stock_distiller_reads_the_students_layer_named_alone():
    value, features = distillation_loss_of_an_epoch(
        ChannelIndependence(student_layer_name="student_feature", target="self"),
        model("teacher", width=6),
        model("student"),
    )

    expected = reference.off_diagonal_energy(features["student_feature"])
    final = reference.off_diagonal_energy(features["student_logits"])
    assert abs(expected - final) > 1e-3
    np.testing.assert_allclose(value, expected, rtol=1e-4)  # tanh and Dense in float32


@pytest.mark.parametrize("names", [("a", "b"), (None, "b"), ("a", None), (None, None)])
def test_config_survives_serialization(names):
    loss = ChannelIndependence(*names, "self", off_diagonal_weight=0.3, epsilon=1e-3)

    serialized = keras.saving.serialize_keras_object(loss)
    restored = keras.saving.deserialize_keras_object(serialized)

    assert type(restored) is ChannelIndependence
    assert restored.get_config() == {
        "teacher_layer_name": names[0],
        "student_layer_name": names[1],
        "target": "self",
        "off_diagonal_weight": 0.3,
        "epsilon": 1e-3,
    }
    assert restored.teacher_layer_name == loss.teacher_layer_name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "both"}, r"one of \('teacher', 'self'\).* target='both'"),
        ({"off_diagonal_weight": -0.1}, ">= 0. Received: off_diagonal_weight=-0.1"),
        ({"off_diagonal_weight": float("nan")}, "Received: off_diagonal_weight=nan"),
        ({"epsilon": 0.0}, "> 0. Received: epsilon=0.0"),
    ],
)
def test_argument_out_of_range_raises(arguments, message):
    with pytest.raises(ValueError, match=message):
        ChannelIndependence(**arguments)


def test_different_widths_raise():
    with pytest.raises(ValueError, match=r"4 teacher channels and 1 student.*Dense\(4"):
        ChannelIndependence().compute_loss(
            reference.samples(6, 4), reference.samples(6, 1)
        )


@pytest.mark.parametrize("target", ["teacher", "self"])
def test_single_sample_raises(target):
    feature = reference.samples(1, 5, 4)
    with pytest.raises(ValueError, match="at least 2 rows"):
        ChannelIndependence(target=target).compute_loss(feature, feature)
