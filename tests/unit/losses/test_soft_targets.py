"""Losses of class distributions: logits, probabilities, several outputs."""

import keras
import numpy as np
import pytest
import reference
from gradients import value, value_and_gradient
from stock_distiller import distillation_loss_of_an_epoch, model

from keras_dskd.losses import DecoupledDistillation, SoftTargets

# Log-probabilities of order 1 are exact to 1e-7, and multiplied by T² <= 64.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
TEACHER = 3.0 * reference.samples(6, 4)
STUDENT = 3.0 * reference.samples(6, 4, seed=1)


def tensor(array):
    return keras.ops.convert_to_tensor(array, "float32")


def test_temperature_defaults_to_four():
    actual = value(SoftTargets().compute_loss, TEACHER, STUDENT)
    expected = reference.soft_targets(TEACHER, STUDENT, 4.0)
    np.testing.assert_allclose(actual, expected, **TOLERANCE)


def test_losses_of_several_outputs_are_summed():
    other = reference.samples(6, 7, seed=2), reference.samples(6, 7, seed=3)
    in_dicts = SoftTargets(2.0).compute_loss(
        {"a": tensor(TEACHER), "b": tensor(other[0])},
        {"a": tensor(STUDENT), "b": tensor(other[1])},
    )
    expected = sum(
        reference.soft_targets(*pair, 2.0) for pair in [(TEACHER, STUDENT), other]
    )
    np.testing.assert_allclose(float(in_dicts), expected, **TOLERANCE)


def test_outputs_of_different_structures_raise():
    with pytest.raises(ValueError, match="mismatch"):
        SoftTargets().compute_loss({"a": tensor(TEACHER)}, {"b": tensor(STUDENT)})


@pytest.mark.parametrize("teacher_from_logits", [True, False])
@pytest.mark.parametrize("student_from_logits", [True, False])
def test_probabilities_give_the_value_of_logits(
    teacher_from_logits, student_from_logits
):
    loss = SoftTargets(
        teacher_from_logits=teacher_from_logits, student_from_logits=student_from_logits
    )
    actual, gradients = value_and_gradient(
        loss.compute_loss,
        TEACHER if teacher_from_logits else reference.softmax(TEACHER),
        STUDENT if student_from_logits else reference.softmax(STUDENT),
    )
    # float32 keeps 1e-7 of probabilities down to some 1e-4, and so of their
    # logarithms, which are multiplied by T².
    expected = reference.soft_targets(TEACHER, STUDENT)
    np.testing.assert_allclose(actual, expected, **TOLERANCE)
    np.testing.assert_array_equal(gradients[0], 0.0)
    assert np.isfinite(gradients[1]).all()
    assert np.abs(gradients[1]).max() > 0.01


def test_probability_of_zero_has_a_finite_loss_and_gradient():
    teacher = np.array([[1.0, 0.0], [0.0, 1.0]])
    student = np.array([[0.0, 1.0], [0.25, 0.75]])
    loss = SoftTargets(1.0, teacher_from_logits=False, student_from_logits=False)
    actual, gradients = value_and_gradient(loss.compute_loss, teacher, student)
    # A probability of 0 counts as 1e-30: (30 log 10 + log(4/3)) / 2.
    np.testing.assert_allclose(actual, (69.077553 + 0.287682) / 2, rtol=1e-5)
    assert np.isfinite(gradients).all()


@pytest.mark.parametrize("loss_class", [SoftTargets, DecoupledDistillation])
@pytest.mark.parametrize("role", ["teacher", "student"])
@pytest.mark.parametrize(
    ("activation", "advice"),
    [
        ("softmax", r"{loss}\({role}_from_logits=False"),
        ("sigmoid", r"Use BinarySoftTargets\({role}_from_logits=False"),
    ],
)
def test_a_model_that_ends_in_an_activation_raises(
    loss_class, role, activation, advice
):
    activations = {"teacher": None, "student": None, role: activation}
    models = [model(name, activation=a) for name, a in activations.items()]
    advice = advice.format(loss=loss_class.__name__, role=role)
    message = f"the {role} '{role}' ends in a {activation}.*{advice}"
    with pytest.raises(ValueError, match=message):
        loss_class().validate_model_compatibility(*models)
    with pytest.raises(ValueError, match=message):
        keras.distillation.Distiller(*models, loss_class())


def test_a_softmax_layer_at_the_end_raises():
    student = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(3), keras.layers.Softmax()], name="end"
    )
    with pytest.raises(ValueError, match="student 'end' ends in a softmax"):
        SoftTargets().validate_model_compatibility(model("teacher"), student)


def test_a_softmax_that_is_declared_or_not_compared_is_accepted():
    softmax_models = [model(role, activation="softmax") for role in ("t", "s")]
    SoftTargets(
        teacher_from_logits=False, student_from_logits=False
    ).validate_model_compatibility(*softmax_models)
    SoftTargets(
        teacher_layer_name="t_feature", student_layer_name="s_feature"
    ).validate_model_compatibility(*softmax_models)


def test_softmax_models_train_from_probabilities_in_keras_distiller():
    trained, features = distillation_loss_of_an_epoch(
        SoftTargets(2.0, teacher_from_logits=False, student_from_logits=False),
        model("teacher", activation="softmax"),
        model("student", activation="softmax"),
        from_logits=False,
    )
    expected = reference.soft_targets(
        np.log(features["teacher_logits"]), np.log(features["student_logits"]), 2.0
    )
    np.testing.assert_allclose(trained, expected, **TOLERANCE)
