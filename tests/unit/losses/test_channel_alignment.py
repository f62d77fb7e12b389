"""Loss: each student channel follows its teacher channel."""

import keras
import numpy as np
import pytest
import reference
from gradients import assert_gradient_close, value_and_gradient
from stock_distiller import distillation_loss_of_an_epoch, model

from keras_dskd.losses import ChannelAlignment

# Sums of at most some hundred float32 products of order 1.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}


def features(*shape):
    return reference.samples(6, *shape), reference.samples(6, *shape, seed=1)


@pytest.mark.parametrize(
    ("shape", "epsilon"), [((4,), 1e-5), ((3, 4), 0.3), ((2, 3, 4), 1e-5)]
)
def test_values_match_the_reference_and_the_teacher_gets_no_gradient(shape, epsilon):
    teacher, student = features(*shape)
    loss = ChannelAlignment(epsilon=epsilon)

    actual, gradients = value_and_gradient(loss.compute_loss, teacher, student)

    def f(student):
        return reference.channel_alignment(
            reference.rows(teacher), reference.rows(student), epsilon
        )

    np.testing.assert_allclose(actual, f(student), **TOLERANCE)
    assert_gradient_close(gradients[1], reference.finite_difference(f, student))
    np.testing.assert_array_equal(gradients[0], 0.0)


def test_loss_by_hand():
    # epsilon = 144: ±9 standardises to 9 / sqrt(81 + 144) = ±0.6, ±16 to ±0.8, so
    # that C_11 = 0.48 and C_22 = -0.48; (0.52² + 1.48²) / 2 = 1.2304.
    teacher = np.array([[9.0, 16.0], [-9.0, -16.0]])
    student = np.array([[16.0, -9.0], [-16.0, 9.0]])

    actual = float(ChannelAlignment(epsilon=144.0).compute_loss(teacher, student))

    np.testing.assert_allclose(actual, 1.2304, rtol=1e-6)


def test_half_precision_features_equal_the_reference_of_the_rounded():
    # Squares of 1e4 overflow float16.
    teacher, student = (
        keras.ops.cast(1e4 * feature, "float16") for feature in features(3, 4)
    )

    actual = float(ChannelAlignment().compute_loss(teacher, student))

    expected = reference.channel_alignment(
        *(reference.rows(keras.ops.convert_to_numpy(x)) for x in (teacher, student))
    )
    np.testing.assert_allclose(actual, expected, **TOLERANCE)


@pytest.mark.parametrize(
    ("teacher_layer", "student_layer"),
    [("teacher_feature", "student_feature"), (None, "student_feature")],
)
def test_stock_distiller_reads_the_named_layers(teacher_layer, student_layer):
    value, features = distillation_loss_of_an_epoch(
        ChannelAlignment(teacher_layer, student_layer),
        model("teacher", classes=4),
        model("student", classes=4),
    )

    values = {
        (teacher, student): reference.channel_alignment(
            features[teacher or "teacher_logits"], features[student or "student_logits"]
        )
        for teacher in ("teacher_feature", None)
        for student in ("student_feature", None)
    }
    assert np.diff(sorted(values.values())).min() > 1e-3
    expected = values[teacher_layer, student_layer]
    np.testing.assert_allclose(value, expected, rtol=1e-4)  # tanh and Dense in float32


@pytest.mark.parametrize("names", [("a", "b"), (None, "b"), ("a", None), (None, None)])
def test_config_survives_serialization(names):
    loss = ChannelAlignment(*names, epsilon=1e-3)

    serialized = keras.saving.serialize_keras_object(loss)
    restored = keras.saving.deserialize_keras_object(serialized)

    assert type(restored) is ChannelAlignment
    assert restored.get_config() == {
        "teacher_layer_name": names[0],
        "student_layer_name": names[1],
        "epsilon": 1e-3,
        "rows": "pooled",
    }
    assert restored.teacher_layer_name == loss.teacher_layer_name


@pytest.mark.parametrize("epsilon", [0.0, -1e-5, float("nan")])
def test_epsilon_that_is_not_positive_raises(epsilon):
    with pytest.raises(ValueError, match=rf"> 0. Received: epsilon={epsilon}"):
        ChannelAlignment(epsilon=epsilon)


def test_different_widths_raise():
    with pytest.raises(ValueError, match=r"4 teacher channels and 1 student.*Dense\(4"):
        ChannelAlignment().compute_loss(
            reference.samples(6, 4), reference.samples(6, 1)
        )


def test_single_sample_raises():
    feature = reference.samples(1, 5, 4)
    with pytest.raises(ValueError, match="at least 2 rows"):
        ChannelAlignment().compute_loss(feature, feature)
