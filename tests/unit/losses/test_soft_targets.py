"""Loss: follow the teacher's softened class distribution."""

import keras
import numpy as np
import pytest
import reference
from gradients import assert_gradient_close, value, value_and_gradient
from stock_distiller import distillation_loss_of_an_epoch, model

from keras_dskd.losses import SoftTargets

# Log-probabilities of order 1 are exact to 1e-7, and multiplied by T² <= 64.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def logits():
    return 3.0 * reference.samples(6, 4), 3.0 * reference.samples(6, 4, seed=1)


def tensor(array):
    return keras.ops.convert_to_tensor(array, "float32")


@pytest.mark.parametrize("temperature", [1.0, 4.0, 8])
def test_values_match_the_reference_and_the_teacher_gets_no_gradient(temperature):
    teacher, student = logits()
    loss = SoftTargets(temperature)

    actual, gradients = value_and_gradient(loss.compute_loss, teacher, student)

    def f(student):
        return reference.soft_targets(teacher, student, temperature)

    np.testing.assert_allclose(actual, f(student), **TOLERANCE)
    assert_gradient_close(gradients[1], reference.finite_difference(f, student))
    np.testing.assert_array_equal(gradients[0], 0.0)


def test_temperature_defaults_to_four():
    teacher, student = logits()

    actual = value(SoftTargets().compute_loss, teacher, student)

    expected = reference.soft_targets(teacher, student, 4.0)
    np.testing.assert_allclose(actual, expected, **TOLERANCE)


def test_outputs_are_summed():
    teacher, student = logits()
    other = reference.samples(6, 7, seed=2), reference.samples(6, 7, seed=3)

    in_dicts = SoftTargets(2.0).compute_loss(
        {"a": tensor(teacher), "b": tensor(other[0])},
        {"a": tensor(student), "b": tensor(other[1])},
    )

    expected = sum(
        reference.soft_targets(*pair, 2.0) for pair in [(teacher, student), other]
    )
    np.testing.assert_allclose(float(in_dicts), expected, **TOLERANCE)


@pytest.mark.parametrize("teacher_from_logits", [True, False])
@pytest.mark.parametrize("student_from_logits", [True, False])
def test_probabilities_give_what_logits_give(teacher_from_logits, student_from_logits):
    teacher, student = logits()
    loss = SoftTargets(
        teacher_from_logits=teacher_from_logits, student_from_logits=student_from_logits
    )

    actual, gradients = value_and_gradient(
        loss.compute_loss,
        teacher if teacher_from_logits else reference.softmax(teacher),
        student if student_from_logits else reference.softmax(student),
    )

    expected = reference.soft_targets(teacher, student)
    # Probabilities down to some 1e-4 are exact to 1e-7 of themselves in float32,
    # and so are their logarithms, times T².
    np.testing.assert_allclose(actual, expected, **TOLERANCE)
    np.testing.assert_array_equal(gradients[0], 0.0)
    assert np.isfinite(gradients[1]).all()
    assert np.abs(gradients[1]).max() > 0.01


def test_probability_of_zero_is_finite():
    teacher = np.array([[1.0, 0.0], [0.0, 1.0]])
    student = np.array([[0.0, 1.0], [0.25, 0.75]])
    loss = SoftTargets(1.0, teacher_from_logits=False, student_from_logits=False)

    actual, gradients = value_and_gradient(loss.compute_loss, teacher, student)

    # A probability of 0 counts as 1e-30: (30 log 10 + log(4/3)) / 2.
    np.testing.assert_allclose(actual, (69.077553 + 0.287682) / 2, rtol=1e-5)
    assert np.isfinite(gradients).all()


@pytest.mark.parametrize("role", ["teacher", "student"])
@pytest.mark.parametrize(
    ("activation", "advice"),
    [("softmax", "{role}_from_logits=False"), ("sigmoid", "one logit per class")],
)
def test_model_that_ends_in_an_activation_is_refused(role, activation, advice):
    activations = {"teacher": None, "student": None, role: activation}
    models = [model(name, activation=a) for name, a in activations.items()]

    message = f"the {role} '{role}' ends in a {activation}.*{advice}"

    with pytest.raises(ValueError, match=message.format(role=role)):
        SoftTargets().validate_model_compatibility(*models)
    with pytest.raises(ValueError, match=message.format(role=role)):
        keras.distillation.Distiller(*models, SoftTargets())


def test_softmax_layer_at_the_end_is_refused():
    student = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(3), keras.layers.Softmax()], name="end"
    )

    with pytest.raises(ValueError, match="student 'end' ends in a softmax"):
        SoftTargets().validate_model_compatibility(model("teacher"), student)


def test_softmax_that_is_declared_or_not_compared_is_accepted():
    softmax_models = [model(role, activation="softmax") for role in ("t", "s")]

    SoftTargets(
        teacher_from_logits=False, student_from_logits=False
    ).validate_model_compatibility(*softmax_models)
    SoftTargets(
        teacher_layer_name="t_feature", student_layer_name="s_feature"
    ).validate_model_compatibility(*softmax_models)


def test_stock_distiller_trains_with_it():
    trained, features = distillation_loss_of_an_epoch(
        SoftTargets(2.0), model("teacher"), model("student")
    )

    expected = reference.soft_targets(
        features["teacher_logits"], features["student_logits"], 2.0
    )
    np.testing.assert_allclose(trained, expected, **TOLERANCE)


@pytest.mark.parametrize(
    ("teacher_layer", "student_layer"),
    [("teacher_feature", "student_feature"), (None, "student_feature")],
)
def test_stock_distiller_reads_the_named_layers(teacher_layer, student_layer):
    loss = SoftTargets(
        2.0, teacher_layer_name=teacher_layer, student_layer_name=student_layer
    )

    trained, features = distillation_loss_of_an_epoch(
        loss, model("teacher", classes=4), model("student", classes=4)
    )

    tapped = reference.soft_targets(
        features[teacher_layer or "teacher_logits"],
        features[student_layer or "student_logits"],
        2.0,
    )
    final = reference.soft_targets(
        features["teacher_logits"], features["student_logits"], 2.0
    )
    assert abs(tapped - final) > 1e-3
    np.testing.assert_allclose(trained, tapped, **TOLERANCE)


def test_softmax_models_train_from_probabilities_in_the_stock_distiller():
    loss = SoftTargets(2.0, teacher_from_logits=False, student_from_logits=False)

    trained, features = distillation_loss_of_an_epoch(
        loss,
        model("teacher", activation="softmax"),
        model("student", activation="softmax"),
        from_logits=False,
    )

    expected = reference.soft_targets(
        np.log(features["teacher_logits"]), np.log(features["student_logits"]), 2.0
    )
    np.testing.assert_allclose(trained, expected, **TOLERANCE)


def test_config_survives_serialization():
    loss = SoftTargets(2.5, "a", "b", teacher_from_logits=False)

    serialized = keras.saving.serialize_keras_object(loss)
    restored = keras.saving.deserialize_keras_object(serialized)

    assert type(restored) is SoftTargets
    assert restored.get_config() == {
        "temperature": 2.5,
        "teacher_layer_name": "a",
        "student_layer_name": "b",
        "teacher_from_logits": False,
        "student_from_logits": True,
    }


@pytest.mark.parametrize("temperature", [0.0, -2.0, float("nan")])
def test_temperature_that_is_not_positive_raises(temperature):
    with pytest.raises(ValueError, match=rf"temperature={temperature}"):
        SoftTargets(temperature)


def test_different_numbers_of_classes_raise():
    with pytest.raises(ValueError, match=r"same shape .*\(6, 4\).*\(6, 3\)"):
        SoftTargets().compute_loss(
            tensor(reference.samples(6, 4)), tensor(reference.samples(6, 3))
        )


def test_different_structures_raise():
    teacher, student = map(tensor, logits())
    with pytest.raises(ValueError, match="mismatch"):
        SoftTargets().compute_loss({"a": teacher}, {"b": student})
