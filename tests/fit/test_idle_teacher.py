"""`evaluate` and `predict` of the student alone leave the teacher where it is.

On JAX, the trainer removes the values of a model's variables during a pass over data.
"""

import keras
import numpy as np
import pytest
from small_models import crossentropy, labels, mlp, rows

import keras_dskd
from keras_dskd.losses import ChannelAlignment, SoftTargets

pytestmark = pytest.mark.every_backend

X = {"teacher": rows(8, 4), "student": rows(8, 3, seed=1)}
Y = labels(8)


def distiller(kind=keras_dskd.Distiller, **kwargs):
    made = kind(
        mlp(4, name="teacher", seed=7),
        mlp(3),
        [SoftTargets(), ChannelAlignment("hidden", "hidden")],
        **kwargs,
    )
    made.compile("sgd", crossentropy())
    return made


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX alone moves values")
@pytest.mark.parametrize("task", ["evaluate", "predict"])
def test_the_trainer_takes_no_value_from_the_teacher(task):
    """A step deletes the values that it gets from the trainer."""
    made = distiller()
    values = [variable.value for variable in made.teacher.variables]
    of_student = made.student.variables[0].value
    y = [Y] if task == "evaluate" else []
    getattr(made, task)(X, *y, verbose=0)
    assert of_student.is_deleted()
    assert not any(value.is_deleted() for value in values)


def test_a_pass_changes_no_weight_and_training_goes_on():
    made, untouched = distiller(), distiller()
    untouched.set_weights(made.get_weights())
    before = made.get_weights()
    made.evaluate(X, Y, verbose=0)
    made.predict(X["student"], verbose=0)
    for one, other in zip(made.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)
    history = made.fit(
        X, Y, epochs=2, shuffle=False, verbose=0, validation_data=(X["student"], Y)
    )
    expected = untouched.fit(X, Y, epochs=2, shuffle=False, verbose=0)
    assert history.history["loss"] == pytest.approx(expected.history["loss"], rel=1e-5)


@pytest.mark.parametrize("compiled_before", [False, True])
def test_the_teacher_that_evaluate_runs_is_todays(compiled_before):
    """A compiled step reads the teacher's weights anew if it runs the teacher."""
    made = distiller()
    made.evaluates_teacher = compiled_before
    made.evaluate(X, Y, verbose=0)
    made.evaluates_teacher = True
    before = made.evaluate(X, Y, verbose=0, return_dict=True)
    made.teacher.set_weights([3 * each for each in made.teacher.get_weights()])
    after = made.evaluate(X, Y, verbose=0, return_dict=True)
    assert abs(after["soft_targets"] - before["soft_targets"]) > 1e-3
    made.evaluates_teacher = False
    assert "soft_targets" not in made.evaluate(X, Y, verbose=0, return_dict=True)


def test_labels_that_go_missing_bring_the_teacher_back():
    """With weight 0 for labels, each batch decides whether the teacher runs."""
    made = distiller()
    made.evaluate(X, Y, verbose=0)
    made.student_loss_weight = 0.0
    before = made.evaluate(X, verbose=0, return_dict=True)["soft_targets"]
    made.teacher.set_weights([3 * each for each in made.teacher.get_weights()])
    after = made.evaluate(X, verbose=0, return_dict=True)["soft_targets"]
    assert abs(after - before) > 1e-3


class PredictsBoth(keras_dskd.Distiller):
    """A subclass that runs the teacher outside training."""

    def call(self, inputs, training=None, **kwargs):
        outputs = super().call(inputs, training=training, **kwargs)
        if training:
            return outputs
        return outputs + self.teacher(inputs["teacher"], training=False)


def test_a_subclass_that_predicts_with_the_teacher_reads_its_present_weights():
    made = distiller(PredictsBoth)
    made.predict(X, verbose=0)
    made.teacher.set_weights([3 * each for each in made.teacher.get_weights()])
    expected = made.teacher.predict(X["teacher"], verbose=0)
    expected += made.student.predict(X["student"], verbose=0)
    np.testing.assert_allclose(made.predict(X, verbose=0), expected, rtol=1e-5)


def test_layers_that_the_student_shares_with_the_teacher_are_passed_on():
    shared = keras.layers.Dense(5, "tanh", name="hidden")

    def model(name):
        inputs = keras.Input((3,))
        outputs = keras.layers.Dense(3, name="logits")(shared(inputs))
        return keras.Model(inputs, outputs, name=name)

    made = keras_dskd.Distiller(model("teacher"), model("student"), SoftTargets())
    made.compile("sgd", crossentropy())
    x = X["student"]
    made.predict(x, verbose=0)
    shared.set_weights([3 * each for each in shared.get_weights()])
    expected = made.student.predict(x, verbose=0)
    np.testing.assert_allclose(made.predict(x, verbose=0), expected, rtol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="of keras.distribution")
def test_on_distributed_devices_each_call_has_the_state_that_its_step_takes():
    """There, a compiled step says how the variables of its state are divided."""
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    try:
        made = distiller()
        expected = made.evaluate(X, Y, verbose=0)
        predicted = made.predict(X["student"], verbose=0)
        found = made.test_on_batch(X["student"], Y)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        found = made.predict_on_batch(X["student"])
        np.testing.assert_allclose(found, predicted, rtol=1e-5)
        made.evaluates_teacher = True
        made.evaluates_teacher = False
        np.testing.assert_allclose(made.evaluate(X, Y, verbose=0), expected, rtol=1e-5)
        found = made.predict(X["student"], verbose=0)
        np.testing.assert_allclose(found, predicted, rtol=1e-5)
    finally:
        keras.distribution.set_distribution(None)
