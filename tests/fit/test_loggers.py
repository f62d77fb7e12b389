"""Each loss reaches the loggers that users watch."""

import keras
import numpy as np
import pytest
from small_models import crossentropy, labels, mlp, rows

import keras_dskd

X = {"teacher": rows(16, 4), "student": rows(16, 3)}
Y = labels()
TERMS = ("soft_targets", "channel_independence")
TOTALS = ("loss", "student_loss", "distillation_loss", "total_loss")


def fit(**kwargs):
    losses = [
        keras_dskd.losses.SoftTargets(),
        keras_dskd.losses.ChannelIndependence("hidden", "hidden"),
    ]
    made = keras_dskd.Distiller(mlp(4, name="teacher"), mlp(3), losses)
    made.compile("sgd", crossentropy())
    return made.fit(X, Y, batch_size=8, epochs=2, verbose=0, **kwargs).history


# TensorBoard's arrays cause it with NumPy 2, not this package.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("update_freq", ["epoch", "batch"])
def test_tensorboard_shows_each_loss(update_freq, tmp_path):
    for needed in ("tensorboard", "tensorflow"):
        pytest.importorskip(needed, reason=f"Keras's callback writes with {needed}")
    from tensorboard.backend.event_processing import event_accumulator
    from tensorboard.util import tensor_util

    history = fit(
        validation_data=(X["student"], Y),
        callbacks=[keras.callbacks.TensorBoard(tmp_path, update_freq=update_freq)],
    )

    def values(folder, tag):
        events = event_accumulator.EventAccumulator(str(tmp_path / folder))
        events.Reload()
        return [tensor_util.make_ndarray(e.tensor_proto) for e in events.Tensors(tag)]

    for name in (*TERMS, *TOTALS):
        np.testing.assert_allclose(values("train", f"epoch_{name}"), history[name])
        if update_freq == "batch":
            of_batches = values("train", f"batch_{name}")
            assert len(of_batches) == 4
            # The running mean of an epoch; after its last batch, the mean of the epoch.
            np.testing.assert_allclose(of_batches[1::2], history[name])
    np.testing.assert_allclose(values("validation", "epoch_loss"), history["val_loss"])


def test_csv_logger_has_a_column_for_each_loss(tmp_path):
    history = fit(callbacks=[keras.callbacks.CSVLogger(tmp_path / "log.csv")])
    table = np.genfromtxt(tmp_path / "log.csv", delimiter=",", names=True)
    for name in (*TERMS, *TOTALS):
        np.testing.assert_allclose(table[name], history[name])


def test_wandb_shows_each_loss(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="this needs wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with wandb.init(mode="offline", dir=tmp_path) as run:
        from wandb.integration.keras import WandbMetricsLogger

        history = fit(callbacks=[WandbMetricsLogger(log_freq="batch")])
        received = dict(run.summary)
    for name in (*TERMS, *TOTALS):
        for per in ("epoch", "batch"):
            assert received[f"{per}/{name}"] == pytest.approx(history[name][-1])
