"""What `evaluate` computes and reports."""

import keras
import numpy as np
import pytest
from keras import ops
from small_models import Counting, cnn, crossentropy, images, labels, mlp, rows

import keras_dskd
from keras_dskd.losses import ChannelAlignment, SoftTargets

X = {"teacher": rows(8, 4), "student": rows(8, 3, seed=1)}
Y = labels(8)
# The same float32 formulas; only the order of sums differs.
CLOSE = {"rel": 1e-5, "abs": 1e-6}
ALONE = {"loss", "total_loss"}
TERMS = {"soft_targets", "channel_alignment", "distillation_loss"}


def distiller(loss="default", teacher=None, **kwargs):
    made = keras_dskd.Distiller(
        teacher or mlp(4, name="teacher", seed=7),
        mlp(3),
        [SoftTargets(), ChannelAlignment("hidden", "hidden")],
        projectors={"hidden": keras.layers.Dense(5, kernel_regularizer="l2")},
        **kwargs,
    )
    made.compile(keras.optimizers.SGD(0.0), crossentropy() if loss else None)
    return made


def evaluate(made, x=X, y=Y):
    return made.evaluate(x, y, batch_size=8, verbose=0, return_dict=True)


def step(made, y=Y):
    logs = made.fit(X, y, batch_size=8, verbose=0).history
    return {name: values[-1] for name, values in logs.items()}


def test_the_student_alone_has_one_loss_under_two_names():
    made = distiller()
    alone = mlp(3)
    alone.compile(loss=crossentropy())
    expected = alone.evaluate(X["student"], Y, verbose=0)
    for x in (X, X["student"]):
        assert evaluate(made, x) == pytest.approx(
            {"loss": expected, "total_loss": expected}, **CLOSE
        )


def test_with_the_teacher_it_reports_what_training_reports():
    made = distiller()
    evaluate(made)  # The compiled step is replaced.
    made.evaluates_teacher = True
    assert evaluate(made) == pytest.approx(step(made), **CLOSE)
    assert set(evaluate(made, X["student"])) == ALONE
    made.evaluates_teacher = False
    assert set(evaluate(made)) == ALONE


def test_without_a_loss_for_labels_it_reports_the_distillation_losses():
    made = distiller(loss=None, student_loss_weight=0.0)
    received = evaluate(made, y=None)
    assert set(received) == ALONE | TERMS
    assert received == pytest.approx(step(made, y=None), **CLOSE)


@pytest.mark.backend_neutral
def test_labels_decide_if_they_may_be_missing():
    made = distiller(student_loss_weight=0.0)
    assert set(evaluate(made)) == ALONE
    assert TERMS < set(evaluate(made, y=None))
    with pytest.raises(ValueError, match="`evaluate` needs labels"):
        evaluate(made, X["student"], y=None)


@pytest.mark.backend_neutral
def test_cached_features_and_masks_serve_evaluation():
    made = distiller()
    made.evaluates_teacher = True
    cached = {"teacher_features": made.cache_teacher(X["teacher"], verbose=0)}
    cached["student"] = X["student"]
    assert evaluate(made, cached) == pytest.approx(evaluate(made), **CLOSE)
    mask = np.arange(8) < 5
    some = {name: value[:5] for name, value in X.items()}
    masked = evaluate(made, {**X, "teacher_mask": mask})
    expected = evaluate(made, some, Y[:5])
    for name in TERMS:
        assert masked[name] == pytest.approx(expected[name], **CLOSE)


def test_evaluation_changes_nothing():
    """Neither BatchNorm's averages nor the step that schedules read."""
    made = keras_dskd.Distiller(
        cnn(1, name="teacher"), cnn(1), ChannelAlignment("gap", "gap")
    )
    made.compile("sgd", crossentropy(), run_eagerly=True)
    made.evaluates_teacher = True
    before = made.get_weights()
    pair = {"teacher": images(8), "student": images(8, seed=1)}
    assert "channel_alignment" in evaluate(made, pair)
    for one, other in zip(made.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)
    assert int(ops.convert_to_numpy(made._term_weights.step)) == 0


@pytest.mark.backend_neutral
def test_by_default_the_teacher_is_not_called():
    counting = Counting()
    teacher = keras.Sequential([keras.Input((4,)), counting, keras.layers.Dense(3)])
    made = keras_dskd.Distiller(teacher, mlp(3), SoftTargets())
    made.compile("sgd", crossentropy())
    before = counting.count()
    evaluate(made)
    assert counting.count() == before
    made.evaluates_teacher = True
    evaluate(made)
    assert counting.count() == before + 1


@pytest.mark.backend_neutral
def test_the_choice_is_saved_and_checked(tmp_path):
    made = distiller()
    made.evaluates_teacher = True
    made.save(tmp_path / "made.keras")
    loaded = keras_dskd.Distiller.load(tmp_path / "made.keras")
    assert loaded.evaluates_teacher
    with pytest.raises(ValueError, match="must be True or False. Received: 1"):
        made.evaluates_teacher = 1
