"""Structure in fit's logs, and alarms that name what is wrong."""

import csv

import keras
import numpy as np
import pytest
import reference
from keras import ops
from small_models import (
    cnn,
    crossentropy,
    images,
    labels,
    mlp,
    numbers,
    rows,
    standing_still,
)

import keras_dskd
from keras_dskd import losses
from keras_dskd.callbacks import StructureHistory

# Keras's torch tensors meet NumPy 2; `pytest.warns` shows what is ignored elsewhere.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ impl:DeprecationWarning")

N = 16
X = {"teacher": rows(N, 6, seed=1), "student": rows(N, 4, seed=2)}
Y = labels(N)
# Means of float32 products against NumPy's in float64.
CLOSE = {"rel": 1e-4, "abs": 1e-5}


def distiller(made_of=None, student=None, optimizer=None, **kwargs):
    made = keras_dskd.Distiller(
        mlp(6, name="teacher", seed=10),
        student or mlp(4),
        made_of or [losses.SoftTargets(), losses.SpatialUniformity("hidden")],
        **kwargs,
    )
    made.compile(optimizer or standing_still(), crossentropy())
    return made


def fit(made, *callbacks, x=X, y=Y, **kwargs):
    kwargs = {"batch_size": 4, "shuffle": False, "verbose": 0, **kwargs}
    return made.fit(x, y, callbacks=list(callbacks), **kwargs)


def hidden(model, x):
    return keras.Model(model.inputs, model.get_layer("hidden").output).predict(
        x, verbose=0
    )


# Logs


def test_the_structure_of_a_layer_is_in_the_history_and_in_later_callbacks(tmp_path):
    made = distiller()
    path = tmp_path / "log.csv"
    history = fit(
        made,
        StructureHistory(X["student"], "hidden"),
        keras.callbacks.CSVLogger(path),
        epochs=2,
    )
    features = hidden(made.student, X["student"])
    correlation = np.abs(np.corrcoef(features, rowvar=False))
    different = ~np.eye(len(correlation), dtype=bool)
    expected = {
        "hidden/off_diagonal_correlation": correlation[different].mean(),
        "hidden/uniformity": reference.spatial_uniformity(features),
        "hidden/effective_rank": reference.effective_rank(features),
    }
    received = numbers(history)
    with open(path) as file:
        written = list(csv.DictReader(file))
    assert len(written) == 2
    for name, value in expected.items():
        assert received[name] == pytest.approx(value, **CLOSE)
        assert float(written[1][name]) == pytest.approx(value, **CLOSE)


def test_each_epoch_is_measured_on_the_weights_that_it_left():
    made = distiller(optimizer=keras.optimizers.SGD(0.5))
    history = fit(made, StructureHistory(X["student"], "hidden"), epochs=3)
    values = history.history["hidden/effective_rank"]
    assert len(set(values)) == 3
    expected = reference.effective_rank(hidden(made.student, X["student"]))
    assert values[-1] == pytest.approx(expected, **CLOSE)


def test_the_layers_that_losses_read_are_looked_at_unless_others_are_named():
    made = distiller(
        [losses.SpatialUniformity("hidden"), losses.ChannelAlignment()],
    )
    received = fit(made, StructureHistory(X["student"])).history
    assert {name for name in received if "/" in name} == {
        "hidden/off_diagonal_correlation",
        "hidden/uniformity",
        "hidden/effective_rank",
    }
    received = fit(made, StructureHistory(X, ["hidden", "logits"])).history
    assert {name.split("/")[0] for name in received if "/" in name} == {
        "hidden",
        "logits",
    }


def test_any_model_is_looked_at():
    model = mlp(4)
    model.compile("sgd", crossentropy())
    history = fit(model, StructureHistory(X["student"], "hidden"), x=X["student"])
    expected = reference.effective_rank(hidden(model, X["student"]))
    received = numbers(history)["hidden/effective_rank"]
    assert received == pytest.approx(expected, **CLOSE)


def test_training_is_the_same_with_it_and_without():
    """Batch statistics and the optimizer are left alone."""
    x = {"teacher": images(N, 3), "student": images(N, 1)}

    def trained(*callbacks):
        keras.utils.set_random_seed(0)
        made = keras_dskd.Distiller(
            cnn(3, name="teacher"), cnn(1), losses.SpatialUniformity("gap")
        )
        made.compile("adam", crossentropy())
        fit(made, *callbacks, x=x, epochs=2)
        return made.student.get_weights()

    looked_at = StructureHistory(x["student"], terminate_on_nan=True, copy_every=2)
    for one, other in zip(trained(looked_at), trained(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_early_stopping_reads_the_structure():
    stopping = keras.callbacks.EarlyStopping(
        monitor="hidden/effective_rank", mode="min", patience=0
    )
    made = distiller()
    history = fit(made, StructureHistory(X["student"]), stopping, epochs=5)
    assert len(history.epoch) == 2


def test_tensorboard_shows_the_structure(tmp_path):
    pytest.importorskip("tensorflow", reason="TensorBoard needs TensorFlow")
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    from tensorboard.backend.event_processing import event_accumulator
    from tensorboard.util import tensor_util

    board = keras.callbacks.TensorBoard(tmp_path)
    history = fit(distiller(), StructureHistory(X["student"]), board, epochs=2)
    events = event_accumulator.EventAccumulator(str(tmp_path / "train")).Reload()
    name = "hidden/effective_rank"
    shown = [
        float(tensor_util.make_ndarray(event.tensor_proto))
        for event in events.Tensors(f"epoch_{name}")
    ]
    assert shown == pytest.approx(history.history[name])


# Wrong uses


def test_a_layer_that_is_not_there_is_named_before_training():
    made = distiller()
    with pytest.raises(ValueError, match='Tap "hiden" not found .* "hidden"'):
        fit(made, StructureHistory(X["student"], "hiden"))


def test_without_any_layer_it_says_so():
    made = distiller(losses.SoftTargets())
    with pytest.raises(ValueError, match="has no layer to look at.* Pass `layers`"):
        fit(made, StructureHistory(X["student"]))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (rows(1, 4), r"at least 2 samples. Received: \(1, 4\)"),
        (iter([]), "arrays with one row per sample. Received: .*iterator"),
        ([rows(3, 4), rows(4, 4)], "arrays with one row per sample"),
    ],
    ids=["one sample", "an iterator", "two lengths"],
)
def test_data_that_cannot_be_measured_is_refused(x, message):
    with pytest.raises(ValueError, match=message):
        StructureHistory(x)


def test_a_number_of_batches_below_one_is_refused():
    with pytest.raises(ValueError, match="at least 1. Received: copy_every=0"):
        StructureHistory(X, copy_every=0)


# Alarms


def warned(*callbacks, made=None, **kwargs):
    """The messages of a run."""
    with pytest.warns(UserWarning) as caught:
        fit(made or distiller(), *callbacks, **kwargs)
    return [str(one.message) for one in caught if issubclass(one.category, UserWarning)]


def test_a_dead_channel_is_warned_of_once():
    student = mlp(4)
    kernel, bias = student.get_layer("hidden").get_weights()
    kernel[:, 2] = 0.0
    student.get_layer("hidden").set_weights([kernel, bias])
    messages = warned(
        StructureHistory(X["student"]), made=distiller(student=student), epochs=3
    )
    assert messages == [
        "1 of 5 channels of layer 'hidden' are dead: they do not vary over the data."
    ]


@pytest.mark.parametrize("kind", ["on a line", "in one direction"])
def test_collapse_is_warned_of_once_with_its_layer(kind):
    student = mlp(4)
    kernel, bias = student.get_layer("hidden").get_weights()
    if kind == "on a line":
        kernel = np.outer(kernel[:, 0], np.full(5, 0.1))
    else:
        kernel, bias = 1e-3 * kernel, bias + 1.0
    student.get_layer("hidden").set_weights([kernel, bias])
    messages = warned(
        StructureHistory(X["student"]), made=distiller(student=student), epochs=2
    )
    assert len(messages) == 1
    assert messages[0].startswith("Features of layer 'hidden' have collapsed")


def test_healthy_features_raise_no_alarm():
    """Warnings are errors here."""
    fit(distiller(), StructureHistory(X["student"], ["hidden", "logits"]), epochs=2)


class Exploding(keras.distillation.DistillationLoss):
    """Is NaN, with its gradient, where a step of the fifth batch is taken."""

    def __init__(self):
        self.teacher_layer_name = self.student_layer_name = "hidden"

    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        # The labels of that batch show in the teacher's features.
        is_marked = ops.max(ops.abs(teacher_outputs)) > 0.99999
        return ops.mean(student_outputs) * ops.where(is_marked, np.nan, 1.0)


def explodes_in_batch(number):
    """Data whose batch of that number, counted from 1, makes the loss NaN."""
    teacher = X["teacher"].copy()
    teacher[4 * (number - 1)] = 1e3
    return {"teacher": teacher, "student": X["student"]}


def exploding(**kwargs):
    return distiller(
        [losses.SoftTargets(), Exploding()],
        optimizer=keras.optimizers.Adam(0.01),
        **kwargs,
    )


def test_a_term_that_is_not_finite_is_named_with_its_layers():
    messages = warned(
        StructureHistory(X["student"], "logits"),
        made=exploding(),
        x=explodes_in_batch(3),
        epochs=2,
    )
    assert messages == [
        "Not finite in epoch 1, batch 3: exploding (teacher 'hidden', student "
        "'hidden').",
        "Features of layer 'logits' are not finite at the end of epoch 1.",
    ]


def test_the_structure_of_features_that_are_not_finite_is_nan_in_the_logs():
    with pytest.warns(UserWarning):
        history = fit(
            exploding(),
            StructureHistory(X["student"], "logits"),
            x=explodes_in_batch(1),
        )
    assert np.isnan(numbers(history)["logits/effective_rank"])


@pytest.mark.parametrize(
    ("copy_every", "steps", "when"),
    [
        (None, 4, "the end of epoch 1"),
        (1, 6, "epoch 2, batch 2"),
        (2, 6, "epoch 2, batch 2"),
    ],
)
def test_training_stops_at_nan_with_the_last_good_weights(copy_every, steps, when):
    """The model and its optimizer are what they were some batches before."""
    x = explodes_in_batch(3)

    def batches():
        for data in (X, *[x] * 4):
            for start in range(0, N, 4):
                part = slice(start, start + 4)
                yield {name: array[part] for name, array in data.items()}, Y[part]

    made, expected = exploding(), exploding()
    expected.student.set_weights(made.student.get_weights())
    alarm = StructureHistory(
        X["student"], "logits", terminate_on_nan=True, copy_every=copy_every
    )
    with pytest.warns(UserWarning, match=f"batch 3: exploding .*weights from {when}"):
        history = made.fit(
            batches(),
            steps_per_epoch=4,
            epochs=5,
            shuffle=False,
            verbose=0,
            callbacks=[alarm],
        )
    assert len(history.epoch) == 2
    assert np.isfinite(history.history["logits/effective_rank"]).all()
    fit(expected)
    if steps > 4:
        fit(expected, x={name: array[:8] for name, array in x.items()}, y=Y[:8])
    for one, other in (
        (made.student.get_weights(), expected.student.get_weights()),
        (
            [ops.convert_to_numpy(v) for v in made.optimizer.variables],
            [ops.convert_to_numpy(v) for v in expected.optimizer.variables],
        ),
    ):
        for received, wanted in zip(one, other, strict=True):
            # The same float32 steps, compiled in two programs.
            np.testing.assert_allclose(received, wanted, rtol=1e-4, atol=1e-6)
    assert ops.convert_to_numpy(made.optimizer.iterations) == steps
    # It can go on.
    assert np.isfinite(numbers(fit(made))["loss"])


def test_a_run_that_is_nan_from_its_first_batch_ends_as_it_began():
    made = exploding()
    before = made.student.get_weights()
    with pytest.warns(UserWarning, match="with the weights from before training"):
        fit(
            made,
            StructureHistory(X["student"], "logits", terminate_on_nan=True),
            x=explodes_in_batch(1),
            epochs=3,
        )
    for received, wanted in zip(made.student.get_weights(), before, strict=True):
        np.testing.assert_array_equal(received, wanted)


def test_a_model_without_a_teacher_stops_at_nan_as_well():
    model = mlp(4)
    model.compile("adam", crossentropy())
    x = X["student"].copy()
    x[9] = np.nan
    before = model.get_weights()
    with pytest.warns(UserWarning, match="Not finite in epoch 1, batch 3: loss"):
        fit(model, StructureHistory(x[:8], "hidden", terminate_on_nan=True), x=x)
    for received, wanted in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(received, wanted)


def undefined(y, logits):
    return ops.mean(logits) * np.nan


def test_a_metric_that_is_not_finite_is_no_reason_to_stop():
    """Warnings are errors here."""
    made = distiller()
    made.compile("sgd", crossentropy(), metrics=[undefined])
    alarm = StructureHistory(X["student"], terminate_on_nan=True)
    assert len(fit(made, alarm, epochs=2).epoch) == 2


def test_each_run_is_warned_of():
    made = exploding()
    alarm = StructureHistory(X["student"], "logits", terminate_on_nan=True)
    for _ in range(2):
        with pytest.warns(UserWarning, match="Training stops"):
            fit(made, alarm, x=explodes_in_batch(1))


def test_weights_that_are_not_finite_from_the_start_are_refused():
    student = mlp(4)
    student.get_layer("logits").bias.assign([np.nan, 0.0, 0.0])
    made = distiller(student=student)
    with pytest.raises(ValueError, match="not finite .before training.: .*logits/bias"):
        fit(made, StructureHistory(X["student"], terminate_on_nan=True))
