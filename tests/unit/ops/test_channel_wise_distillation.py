"""Channel-wise distillation: each channel's distribution over positions."""

import keras
import numpy as np
import pytest
import reference
from gradients import assert_gradient_close, value, value_and_gradient

from keras_dskd import ops


def test_value_by_hand():
    # Two positions, T = 1. The first channel: 1/4, 3/4 against 1/2, 1/2: 0.130812. The
    # second is equal up to a constant.
    teacher = np.array([[[0.0, 5.0], [np.log(3.0), 6.0]]])
    student = np.array([[[2.0, 0.0], [2.0, 1.0]]])
    actual = value(
        lambda t, s: ops.channel_wise_distillation(t, s, 1.0), teacher, student
    )
    np.testing.assert_allclose(actual, 0.130812 / 2, rtol=1e-5)


@pytest.mark.parametrize("shape", [(2, 5, 3), (2, 3, 2, 4), (2, 2, 3, 2, 2)])
def test_feature_maps_of_rank_3_to_5_match_the_reference(shape):
    teacher = 3.0 * reference.samples(*shape)
    student = 3.0 * reference.samples(*shape, seed=1)

    def formula(x):
        return reference.channel_wise_distillation(teacher, x)

    actual, gradients = value_and_gradient(
        ops.channel_wise_distillation, teacher, student, compiled=True
    )
    np.testing.assert_allclose(actual, formula(student), rtol=1e-5)
    expected = reference.finite_difference(formula, student)
    assert_gradient_close(gradients[1], expected)


@pytest.fixture
def channels_first():
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format(before)


@pytest.mark.parametrize("shape", [(2, 5, 3), (2, 3, 2, 4)])
def test_the_image_data_format_says_which_axis_is_the_channel(shape, channels_first):
    teacher, student = reference.samples(*shape), reference.samples(*shape, seed=1)
    expected = reference.channel_wise_distillation(teacher, student)
    if len(shape) > 3:
        teacher, student = (np.moveaxis(x, -1, 1) for x in (teacher, student))
    actual = value(ops.channel_wise_distillation, teacher, student)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_with_channels_first_the_projector_is_a_convolution(channels_first):
    with pytest.raises(ValueError, match=r"projectors=.*Conv2D\(4, 1\)"):
        ops.channel_wise_distillation(np.ones((2, 4, 3, 3)), np.ones((2, 2, 3, 3)))


def test_saturated_maps_have_the_reference_value_and_a_finite_gradient():
    teacher, student = np.full((1, 3, 2), -80.0), np.full((1, 3, 2), -80.0)
    teacher[0, 0], student[0, 1] = 80.0, 80.0
    actual, gradients = value_and_gradient(
        lambda t, s: ops.channel_wise_distillation(t, s, 1.0), teacher, student
    )
    np.testing.assert_allclose(actual, 160.0, rtol=1e-6)
    assert np.isfinite(gradients).all()
    np.testing.assert_allclose(gradients[1][0, :, 0], [-0.5, 0.5, 0.0], atol=1e-6)


@pytest.mark.parametrize(
    ("teacher", "student", "message"),
    [
        ((2, 4, 4, 3), (2, 4, 4, 2), r"3 teacher channels.*projectors=.*Dense\(3\)"),
        ((2, 4, 4, 3), (2, 2, 2, 3), r"\(4, 4\) positions.*\(2, 2\).*Resizing"),
        ((2, 4, 4, 3), (2, 16, 3), r"\(4, 4\) positions.*\(16,\)"),
        ((1, 4, 4, 3), (2, 4, 4, 3), "same samples"),
        ((2, 1, 1, 3), (2, 1, 1, 3), "at least two positions"),
        ((2, 3), (2, 3), "Expected a feature map"),
    ],
)
def test_maps_that_do_not_fit_raise(teacher, student, message):
    with pytest.raises(ValueError, match=message):
        ops.channel_wise_distillation(np.ones(teacher), np.ones(student))
