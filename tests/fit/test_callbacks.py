"""StructureHistory: structure in the logs of `fit`, and its warnings."""

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

# NumPy 2 warns about torch tensors' `__array__`, and `pytest.warns` records that, too.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ impl:DeprecationWarning")

N = 16
X = {"teacher": rows(N, 6, seed=1), "student": rows(N, 4, seed=2)}
Y = labels(N)
# float32 against NumPy in float64.
CLOSE = {"rel": 1e-4, "abs": 1e-5}


def build_distiller(distillation_losses=None, student=None, optimizer=None, **kwargs):
    distiller = keras_dskd.Distiller(
        mlp(6, name="teacher", seed=10),
        student or mlp(4),
        distillation_losses
        or [losses.SoftTargets(), losses.SpatialUniformity("hidden")],
        **kwargs,
    )
    distiller.compile(optimizer or standing_still(), crossentropy())
    return distiller


def fit(distiller, *callbacks, x=X, y=Y, **kwargs):
    kwargs = {"batch_size": 4, "shuffle": False, "verbose": 0, **kwargs}
    return distiller.fit(x, y, callbacks=list(callbacks), **kwargs)


def hidden(model, x):
    return keras.Model(model.inputs, model.get_layer("hidden").output).predict(
        x, verbose=0
    )


# Logs


def test_history_and_later_callbacks_see_the_structure_of_a_layer(tmp_path):
    distiller = build_distiller()
    path = tmp_path / "log.csv"
    history = fit(
        distiller,
        StructureHistory(X["student"], "hidden"),
        keras.callbacks.CSVLogger(path),
        epochs=2,
    )
    features = hidden(distiller.student, X["student"])
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


def test_structure_is_measured_on_the_weights_at_the_end_of_the_epoch():
    distiller = build_distiller(optimizer=keras.optimizers.SGD(0.5))
    history = fit(distiller, StructureHistory(X["student"], "hidden"), epochs=3)
    values = history.history["hidden/effective_rank"]
    assert len(set(values)) == 3
    expected = reference.effective_rank(hidden(distiller.student, X["student"]))
    assert values[-1] == pytest.approx(expected, **CLOSE)


@pytest.mark.backend_neutral
def test_layers_default_to_those_that_the_losses_read():
    distiller = build_distiller(
        [losses.SpatialUniformity("hidden"), losses.ChannelAlignment()],
    )
    received = fit(distiller, StructureHistory(X["student"])).history
    assert {name for name in received if "/" in name} == {
        "hidden/off_diagonal_correlation",
        "hidden/uniformity",
        "hidden/effective_rank",
    }
    received = fit(distiller, StructureHistory(X, ["hidden", "logits"])).history
    assert {name.split("/")[0] for name in received if "/" in name} == {
        "hidden",
        "logits",
    }


def test_it_works_with_any_keras_model():
    model = mlp(4)
    model.compile("sgd", crossentropy())
    history = fit(model, StructureHistory(X["student"], "hidden"), x=X["student"])
    expected = reference.effective_rank(hidden(model, X["student"]))
    received = numbers(history)["hidden/effective_rank"]
    assert received == pytest.approx(expected, **CLOSE)


def test_it_does_not_change_training():
    """Neither batch statistics nor the optimizer change."""
    x = {"teacher": images(N, 3), "student": images(N, 1)}

    def trained(*callbacks):
        keras.utils.set_random_seed(0)
        distiller = keras_dskd.Distiller(
            cnn(3, name="teacher"), cnn(1), losses.SpatialUniformity("gap")
        )
        distiller.compile("adam", crossentropy())
        fit(distiller, *callbacks, x=x, epochs=2)
        return distiller.student.get_weights()

    callback = StructureHistory(x["student"], terminate_on_nan=True, copy_every=2)
    for one, other in zip(trained(callback), trained(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_early_stopping_can_monitor_the_structure():
    stopping = keras.callbacks.EarlyStopping(
        monitor="hidden/effective_rank", mode="min", patience=0
    )
    distiller = build_distiller()
    history = fit(distiller, StructureHistory(X["student"]), stopping, epochs=5)
    assert len(history.epoch) == 2


@pytest.mark.backend_neutral
def test_tensorboard_shows_the_structure(tmp_path):
    pytest.importorskip("tensorflow", reason="TensorBoard needs TensorFlow")
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    from tensorboard.backend.event_processing import event_accumulator
    from tensorboard.util import tensor_util

    board = keras.callbacks.TensorBoard(tmp_path)
    history = fit(build_distiller(), StructureHistory(X["student"]), board, epochs=2)
    events = event_accumulator.EventAccumulator(str(tmp_path / "train")).Reload()
    name = "hidden/effective_rank"
    shown = [
        float(tensor_util.make_ndarray(event.tensor_proto))
        for event in events.Tensors(f"epoch_{name}")
    ]
    assert shown == pytest.approx(history.history[name])


# Wrong arguments


@pytest.mark.backend_neutral
def test_an_unknown_layer_raises_before_training():
    distiller = build_distiller()
    with pytest.raises(ValueError, match='Tap "hiden" not found .* "hidden"'):
        fit(distiller, StructureHistory(X["student"], "hiden"))


@pytest.mark.backend_neutral
def test_no_layer_to_measure_raises():
    distiller = build_distiller(losses.SoftTargets())
    with pytest.raises(ValueError, match="has no layer to measure.* Pass `layers`"):
        fit(distiller, StructureHistory(X["student"]))


@pytest.mark.backend_neutral
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (rows(1, 4), r"at least 2 samples. Received: \(1, 4\)"),
        (iter([]), "arrays with one row per sample. Received: .*iterator"),
        ([rows(3, 4), rows(4, 4)], "arrays with one row per sample"),
    ],
    ids=["one sample", "an iterator", "different lengths"],
)
def test_data_that_cannot_be_measured_raises(x, message):
    with pytest.raises(ValueError, match=message):
        StructureHistory(x)


@pytest.mark.backend_neutral
def test_copy_every_below_one_raises():
    with pytest.raises(ValueError, match="at least 1. Received: copy_every=0"):
        StructureHistory(X, copy_every=0)


# Warnings


def warned(*callbacks, distiller=None, **kwargs):
    """The warnings of a run."""
    with pytest.warns(UserWarning) as caught:
        fit(distiller or build_distiller(), *callbacks, **kwargs)
    return [str(one.message) for one in caught if issubclass(one.category, UserWarning)]


@pytest.mark.backend_neutral
def test_a_dead_channel_causes_one_warning():
    student = mlp(4)
    kernel, bias = student.get_layer("hidden").get_weights()
    kernel[:, 2] = 0.0
    student.get_layer("hidden").set_weights([kernel, bias])
    messages = warned(
        StructureHistory(X["student"]),
        distiller=build_distiller(student=student),
        epochs=3,
    )
    assert messages == [
        "1 of 5 channels of layer 'hidden' are dead: they do not vary over the data."
    ]


@pytest.mark.backend_neutral
@pytest.mark.parametrize("kind", ["on a line", "in one direction"])
def test_collapse_causes_one_warning_that_names_the_layer(kind):
    student = mlp(4)
    kernel, bias = student.get_layer("hidden").get_weights()
    if kind == "on a line":
        kernel = np.outer(kernel[:, 0], np.full(5, 0.1))
    else:
        kernel, bias = 1e-3 * kernel, bias + 1.0
    student.get_layer("hidden").set_weights([kernel, bias])
    messages = warned(
        StructureHistory(X["student"]),
        distiller=build_distiller(student=student),
        epochs=2,
    )
    assert len(messages) == 1
    assert messages[0].startswith("Features of layer 'hidden' have collapsed")


@pytest.mark.backend_neutral
def test_healthy_features_cause_no_warning():
    """A warning would fail this test, because the suite turns warnings into errors."""
    fit(
        build_distiller(),
        StructureHistory(X["student"], ["hidden", "logits"]),
        epochs=2,
    )


class Exploding(keras.distillation.DistillationLoss):
    """NaN, as is its gradient, in a marked batch. See `explodes_in_batch`."""

    def __init__(self):
        self.teacher_layer_name = self.student_layer_name = "hidden"

    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        # A huge input saturates the teacher's features.
        is_marked = ops.max(ops.abs(teacher_outputs)) > 0.99999
        return ops.mean(student_outputs) * ops.where(is_marked, np.nan, 1.0)


def explodes_in_batch(number):
    """Data whose batch with this number, counted from 1, makes the loss NaN."""
    teacher = X["teacher"].copy()
    teacher[4 * (number - 1)] = 1e3
    return {"teacher": teacher, "student": X["student"]}


def exploding(**kwargs):
    return build_distiller(
        [losses.SoftTargets(), Exploding()],
        optimizer=keras.optimizers.Adam(0.01),
        **kwargs,
    )


def test_the_warning_names_the_nan_term_and_its_layers():
    messages = warned(
        StructureHistory(X["student"], "logits"),
        distiller=exploding(),
        x=explodes_in_batch(3),
        epochs=2,
    )
    assert messages == [
        "NaN or infinity in epoch 1, batch 3: exploding (teacher 'hidden', student "
        "'hidden').",
        "Features of layer 'logits' contain NaN or infinity at the end of epoch 1.",
    ]


def test_the_structure_of_nan_features_is_nan_in_the_logs():
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
    """The model and its optimizer are restored to the last copy."""
    x = explodes_in_batch(3)

    def batches():
        for data in (X, *[x] * 4):
            for start in range(0, N, 4):
                part = slice(start, start + 4)
                yield {name: array[part] for name, array in data.items()}, Y[part]

    distiller, expected = exploding(), exploding()
    expected.student.set_weights(distiller.student.get_weights())
    callback = StructureHistory(
        X["student"], "logits", terminate_on_nan=True, copy_every=copy_every
    )
    with pytest.warns(UserWarning, match=f"batch 3: exploding .*weights from {when}"):
        history = distiller.fit(
            batches(),
            steps_per_epoch=4,
            epochs=5,
            shuffle=False,
            verbose=0,
            callbacks=[callback],
        )
    assert len(history.epoch) == 2
    assert np.isfinite(history.history["logits/effective_rank"]).all()
    fit(expected)
    if steps > 4:
        fit(expected, x={name: array[:8] for name, array in x.items()}, y=Y[:8])
    for one, other in (
        (distiller.student.get_weights(), expected.student.get_weights()),
        (
            [ops.convert_to_numpy(v) for v in distiller.optimizer.variables],
            [ops.convert_to_numpy(v) for v in expected.optimizer.variables],
        ),
    ):
        for received, wanted in zip(one, other, strict=True):
            # The same float32 steps, compiled into different programs.
            np.testing.assert_allclose(received, wanted, rtol=1e-4, atol=1e-6)
    assert ops.convert_to_numpy(distiller.optimizer.iterations) == steps
    # Training can continue.
    assert np.isfinite(numbers(fit(distiller))["loss"])


def test_nan_in_the_first_batch_restores_the_initial_weights():
    distiller = exploding()
    before = distiller.student.get_weights()
    with pytest.warns(UserWarning, match="with the weights from before training"):
        fit(
            distiller,
            StructureHistory(X["student"], "logits", terminate_on_nan=True),
            x=explodes_in_batch(1),
            epochs=3,
        )
    for received, wanted in zip(distiller.student.get_weights(), before, strict=True):
        np.testing.assert_array_equal(received, wanted)


def test_training_of_a_plain_model_stops_at_nan():
    model = mlp(4)
    model.compile("adam", crossentropy())
    x = X["student"].copy()
    x[9] = np.nan
    before = model.get_weights()
    with pytest.warns(UserWarning, match="NaN or infinity in epoch 1, batch 3: loss"):
        fit(model, StructureHistory(x[:8], "hidden", terminate_on_nan=True), x=x)
    for received, wanted in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(received, wanted)


def undefined(y, logits):
    return ops.mean(logits) * np.nan


def test_a_nan_metric_does_not_stop_training():
    """A warning would fail this test, because the suite turns warnings into errors."""
    distiller = build_distiller()
    distiller.compile("sgd", crossentropy(), metrics=[undefined])
    callback = StructureHistory(X["student"], terminate_on_nan=True)
    assert len(fit(distiller, callback, epochs=2).epoch) == 2


@pytest.mark.backend_neutral
def test_each_run_warns_again():
    distiller = exploding()
    callback = StructureHistory(X["student"], "logits", terminate_on_nan=True)
    for _ in range(2):
        with pytest.warns(UserWarning, match="Training stops"):
            fit(distiller, callback, x=explodes_in_batch(1))


def test_nan_weights_before_training_raise():
    student = mlp(4)
    student.get_layer("logits").bias.assign([np.nan, 0.0, 0.0])
    distiller = build_distiller(student=student)
    with pytest.raises(ValueError, match="NaN .* .before training.: .*logits/bias"):
        fit(distiller, StructureHistory(X["student"], terminate_on_nan=True))
