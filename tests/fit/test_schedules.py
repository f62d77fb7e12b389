"""Weights of the student's loss and temperatures that change in training."""

import keras
import numpy as np
import pytest
from keras import ops
from small_models import crossentropy, labels, mlp, rows, standing_still

import keras_dskd
from keras_dskd.losses import (
    ChannelWiseDistillation,
    DecoupledDistillation,
    SoftTargets,
)

X, Y = rows(8, 4), labels(8)
# The same float32 formulas; only the order of sums differs.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}
SCHEDULE = keras.optimizers.schedules.PolynomialDecay(8.0, 4, end_learning_rate=2.0)
EIGHTH = keras.optimizers.schedules.PolynomialDecay(1.0, 4, end_learning_rate=0.5)


@keras.saving.register_keras_serializable(package="tests")
def growing(step):
    return 0.25 * ops.cast(step, "float32")


def distiller(losses=None, **kwargs):
    made = keras_dskd.Distiller(
        mlp(4, name="teacher", seed=5), mlp(4), losses or SoftTargets(), **kwargs
    )
    made.compile(standing_still(), crossentropy())
    return made


def step(made):
    return made.train_on_batch(X, Y, return_dict=True)


def test_the_students_weight_follows_a_schedule():
    made = distiller(student_loss_weight=growing)
    for weight in (0.0, 0.25, 0.5):
        logs = step(made)
        total = weight * logs["student_loss"] + (1 - weight) * logs["distillation_loss"]
        np.testing.assert_allclose(logs["loss"], total, **CLOSE)
    assert "total=growing student_loss + (1 - growing) (1 soft" in repr(made)
    made.student_loss_weight = 0.25
    logs = step(made)
    total = 0.25 * logs["student_loss"] + 0.75 * logs["distillation_loss"]
    np.testing.assert_allclose(logs["loss"], total, **CLOSE)
    made.student_loss_weight = EIGHTH  # Step 4, at its end.
    step(made)
    logs = step(made)
    total = 0.5 * (logs["student_loss"] + logs["distillation_loss"])
    np.testing.assert_allclose(logs["loss"], total, **CLOSE)


def test_an_assigned_temperature_takes_effect_in_the_next_step():
    made = distiller()
    expected = {t: step(distiller(SoftTargets(t)))["soft_targets"] for t in (4.0, 1.0)}
    for temperature in (4.0, 1.0, 4.0):
        made.distillation_losses[0].temperature = temperature
        received = step(made)["soft_targets"]
        np.testing.assert_allclose(received, expected[temperature], **CLOSE)


def test_an_assigned_temperature_takes_effect_within_an_epoch():
    made, received = distiller(), []

    class Lower(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            received.append(logs["soft_targets"])
            self.model.distillation_losses[0].temperature = 1.0

    made.fit(
        np.repeat(X, 2, 0),
        np.repeat(Y, 2),
        batch_size=16,
        verbose=0,
        epochs=2,
        callbacks=[Lower()],
    )
    expected = [step(distiller(SoftTargets(t)))["soft_targets"] for t in (4.0, 1.0)]
    np.testing.assert_allclose(received, expected, **CLOSE)


def test_temperatures_follow_a_schedule():
    made = distiller([SoftTargets(SCHEDULE), DecoupledDistillation(SCHEDULE)])
    for temperature in (8.0, 6.5, 5.0):
        logs = step(made)
        fixed = [SoftTargets(temperature), DecoupledDistillation(temperature)]
        outputs = made.teacher(X), made.student(X)
        for loss, extra in zip(fixed, ({}, {"labels": Y}), strict=True):
            expected = ops.convert_to_numpy(loss.compute_loss(*outputs, **extra))
            np.testing.assert_allclose(logs[loss.name], expected, **CLOSE)
    assert made.distillation_losses[0].temperature is SCHEDULE


@pytest.mark.backend_neutral
def test_schedules_are_saved(tmp_path):
    made = distiller(SoftTargets(SCHEDULE), student_loss_weight=growing)
    made.save(tmp_path / "made.keras")
    loaded = keras_dskd.Distiller.load(tmp_path / "made.keras")
    assert loaded.student_loss_weight is growing
    temperature = loaded.distillation_losses[0].temperature
    assert temperature.get_config() == SCHEDULE.get_config()
    for _ in range(2):
        assert step(loaded) == pytest.approx(step(made))


@pytest.mark.backend_neutral
@pytest.mark.parametrize("kind", [SoftTargets, ChannelWiseDistillation])
def test_a_schedule_alone_has_no_step(kind):
    logits = ops.ones((2, 3, 3, 2))
    with pytest.raises(ValueError, match="`temperature` must be a number"):
        kind(SCHEDULE).compute_loss(logits, logits)


@pytest.mark.backend_neutral
@pytest.mark.parametrize("value", [-0.1, 1.5, "half"])
def test_a_students_weight_out_of_range_is_refused(value):
    made = distiller()
    with pytest.raises(ValueError, match="`student_loss_weight` must be a number"):
        made.student_loss_weight = value
