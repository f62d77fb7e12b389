"""Losses of outputs that are no class distributions, and what models must return."""

import keras
import numpy as np
import pytest
import reference
from gradients import value, value_and_gradient
from stock_distiller import distillation_loss_of_an_epoch, model

from keras_dskd.losses import (
    BinarySoftTargets,
    HardTargets,
    RegressionTargets,
    SoftTargets,
)

TEACHER = 3.0 * reference.samples(6, 4)
STUDENT = 3.0 * reference.samples(6, 4, seed=1)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, "float64")))


@pytest.mark.parametrize("teacher_from_logits", [True, False])
@pytest.mark.parametrize("student_from_logits", [True, False])
def test_probabilities_give_the_value_of_logits(
    teacher_from_logits, student_from_logits
):
    loss = BinarySoftTargets(
        2.0,
        teacher_from_logits=teacher_from_logits,
        student_from_logits=student_from_logits,
    )
    actual, gradients = value_and_gradient(
        loss.compute_loss,
        TEACHER if teacher_from_logits else sigmoid(TEACHER),
        STUDENT if student_from_logits else sigmoid(STUDENT),
    )
    # float32 keeps 1e-7 of probabilities and of 1 - p, which is 1e-4 and more.
    expected = reference.binary_soft_targets(TEACHER, STUDENT, 2.0)
    np.testing.assert_allclose(actual, expected, rtol=1e-4)
    np.testing.assert_array_equal(gradients[0], 0.0)
    assert np.isfinite(gradients[1]).all()
    assert np.abs(gradients[1]).max() > 0.01


def test_probabilities_of_zero_and_one_have_a_finite_loss_and_gradient():
    teacher, student = np.array([1.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0])
    loss = BinarySoftTargets(1.0, None, None, False, False)
    actual, gradients = value_and_gradient(loss.compute_loss, teacher, student)
    # The logits are ±log(2²³ - 1) = ±15.942: 2 · 15.942 / 3.
    np.testing.assert_allclose(actual, 2 * 15.942385 / 3, rtol=1e-5)
    assert np.isfinite(gradients).all()


def test_float16_probabilities_are_converted_in_float32():
    rounded = [sigmoid(x).astype("float16") for x in (TEACHER, STUDENT)]
    loss = BinarySoftTargets(4.0, None, None, False, False)
    actual = loss.compute_loss(*map(keras.ops.convert_to_tensor, rounded))
    logits = [np.log(p) - np.log1p(-p) for p in (x.astype("float64") for x in rounded)]
    assert np.isfinite(logits).all()
    expected = reference.binary_soft_targets(*logits)
    np.testing.assert_allclose(float(actual), expected, rtol=1e-4)


@pytest.mark.parametrize("role", ["teacher", "student"])
@pytest.mark.parametrize(
    ("activation", "from_logits", "advice"),
    [
        ("sigmoid", True, r"Use BinarySoftTargets\({role}_from_logits=False"),
        ("softmax", True, r"Use SoftTargets\({role}_from_logits=False"),
        ("softmax", False, r"Use SoftTargets\({role}_from_logits=False"),
    ],
)
def test_a_model_that_ends_in_another_activation_raises(
    role, activation, from_logits, advice
):
    activations = {"teacher": None, "student": None, role: activation}
    models = [model(name, activation=a) for name, a in activations.items()]
    loss = BinarySoftTargets(**{f"{role}_from_logits": from_logits})
    message = f"the {role} '{role}' ends in a {activation}. {advice.format(role=role)}"
    with pytest.raises(ValueError, match=message):
        loss.validate_model_compatibility(*models)


def test_soft_targets_of_sigmoids_raise_even_as_probabilities():
    models = [model(role, activation="sigmoid") for role in ("teacher", "student")]
    loss = SoftTargets(teacher_from_logits=False, student_from_logits=False)
    with pytest.raises(ValueError, match="Use BinarySoftTargets"):
        loss.validate_model_compatibility(*models)


def test_hard_targets_accept_a_teacher_with_a_softmax():
    softmax, logits = model("t", activation="softmax"), model("s")
    HardTargets().validate_model_compatibility(softmax, logits)
    HardTargets(student_from_logits=False).validate_model_compatibility(
        softmax, softmax
    )
    with pytest.raises(ValueError, match="student 't' ends in a softmax"):
        HardTargets().validate_model_compatibility(logits, softmax)
    with pytest.raises(ValueError, match="teacher 't' ends in a sigmoid"):
        HardTargets().validate_model_compatibility(
            model("t", activation="sigmoid"), logits
        )


def test_hard_targets_of_probabilities_equal_those_of_logits():
    actual = value(
        HardTargets(student_from_logits=False).compute_loss,
        TEACHER,
        reference.softmax(STUDENT),
    )
    expected = reference.hard_targets(TEACHER, STUDENT)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_sigmoid_models_train_from_probabilities_in_keras_distiller():
    trained, features = distillation_loss_of_an_epoch(
        BinarySoftTargets(2.0, None, None, False, False),
        model("teacher", activation="sigmoid"),
        model("student", activation="sigmoid"),
        from_logits=False,
    )
    logits = [
        np.log(p) - np.log1p(-p)
        for p in (features["teacher_logits"], features["student_logits"])
    ]
    expected = reference.binary_soft_targets(*logits, 2.0)
    np.testing.assert_allclose(trained, expected, rtol=1e-4)


@pytest.mark.parametrize(
    "loss_class, formula",
    [
        (BinarySoftTargets, reference.binary_soft_targets),
        (HardTargets, reference.hard_targets),
        (RegressionTargets, reference.regression_targets),
    ],
)
def test_losses_of_several_outputs_are_summed(loss_class, formula):
    other = reference.samples(6, 3, seed=2), reference.samples(6, 3, seed=3)
    actual = loss_class().compute_loss(
        {"a": np.float32(TEACHER), "b": np.float32(other[0])},
        {"a": np.float32(STUDENT), "b": np.float32(other[1])},
    )
    expected = formula(TEACHER, STUDENT) + formula(*other)
    np.testing.assert_allclose(float(actual), expected, rtol=1e-5)
    message = f"{loss_class.__name__} expects the same structure.*Received a mismatch"
    with pytest.raises(ValueError, match=message):
        loss_class().validate_outputs([TEACHER], {"a": STUDENT})


def test_bounded_losses_of_several_outputs_take_labels_of_the_same_structure():
    loss = RegressionTargets(bounded=True)
    outputs = [[0.5 * TEACHER, STUDENT], [STUDENT, TEACHER]]
    labels = [np.zeros((6, 4)), np.ones((6, 4))]
    expected = reference.bounded_regression(outputs[0][0], STUDENT, labels[0])
    expected += reference.bounded_regression(outputs[0][1], TEACHER, labels[1])
    for given in (labels, tuple(labels)):
        actual = loss.compute_loss(*outputs, labels=given)
        np.testing.assert_allclose(float(actual), expected, rtol=1e-5)
    message = "labels of the same structure.*Received labels: dict, outputs: list of 2"
    with pytest.raises(ValueError, match=message):
        loss.compute_loss(*outputs, labels={"a": labels[0], "b": labels[1]})
    with pytest.raises(ValueError, match="labels=None. Pass `y`"):
        loss.compute_loss(*outputs)


@pytest.mark.parametrize("given", [{"margin": 0.5}, {"label_name": "height"}])
def test_arguments_of_the_bounded_form_alone_raise(given):
    with pytest.raises(ValueError, match=r"bounded=False. Pass bounded=True"):
        RegressionTargets(**given)
