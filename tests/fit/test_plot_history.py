"""Figures of training: which curves are in which panel, at which epochs."""

import keras
import numpy as np
import pytest
from structure_model import images, model

import keras_dskd

pytest.importorskip("matplotlib", reason="figures need matplotlib")

LABELS = np.arange(40) % 3


def logged(epochs, logs):
    history = keras.callbacks.History()
    history.epoch, history.history = epochs, logs
    return history


def distilled(**options):
    distiller = keras_dskd.Distiller(
        model(),
        model(),
        [keras_dskd.losses.SoftTargets(), keras_dskd.losses.SpatialUniformity("map")],
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile("sgd", loss, metrics=["accuracy"])
    return distiller.fit(images(), LABELS, verbose=0, **options)


def panels(figure):
    return {axes.get_title(): axes for axes in figure.axes}


def curves(axes):
    return {line.get_label(): line for line in axes.lines}


@pytest.mark.backend_neutral
def test_losses_terms_metrics_and_structure_have_panels(tmp_path):
    watch = keras_dskd.StructureHistory(images(), ["map", "features"])
    history = distilled(epochs=3, validation_data=(images(), LABELS), callbacks=[watch])
    path = tmp_path / "history.png"
    shown = panels(keras_dskd.plot_history(history, path=path))
    assert path.read_bytes().startswith(b"\x89PNG")
    assert list(shown)[:2] == ["loss", "student_loss"]
    assert set(shown) == {
        "loss",
        "student_loss",
        "soft_targets",
        "spatial_uniformity",
        "accuracy",
        "mean |correlation| of channels",
        "uniformity (lower: more even)",
        "effective rank",
    }
    assert list(curves(shown["loss"])) == ["loss", "distillation_loss"]
    assert list(curves(shown["student_loss"])) == ["student_loss", "val_loss"]
    assert list(curves(shown["soft_targets"])) == ["soft_targets"]
    assert sorted(curves(shown["effective rank"])) == ["features", "map"]
    drawn = curves(shown["accuracy"])
    assert drawn["accuracy"].get_linestyle() == "-"
    assert drawn["val_accuracy"].get_linestyle() == "--"
    for name, line in drawn.items():
        assert line.get_xdata().tolist() == [1, 2, 3]
        assert line.get_ydata().tolist() == history.history[name]


@pytest.mark.backend_neutral
def test_resumed_training_is_drawn_at_its_epochs():
    # `fit(epochs=5, initial_epoch=2, validation_freq=2)`
    history = logged([2, 3, 4], {"accuracy": [0.1, 0.2, 0.3], "val_accuracy": [0.2]})
    figure = keras_dskd.plot_history(history, validation_freq=2)
    drawn = curves(panels(figure)["accuracy"])
    assert drawn["accuracy"].get_xdata().tolist() == [3, 4, 5]
    assert drawn["val_accuracy"].get_xdata().tolist() == [4]


@pytest.mark.backend_neutral
def test_the_history_of_a_plain_model_is_drawn():
    history = logged([0, 1], {"loss": [2.0, 1.0], "val_loss": [2.0, 1.5]})
    shown = panels(keras_dskd.plot_history(history, title="plain"))
    assert list(shown) == ["loss"]
    assert list(curves(shown["loss"])) == ["loss", "val_loss"]


@pytest.mark.backend_neutral
def test_a_dict_with_nan_is_drawn():
    figure = keras_dskd.plot_history({"loss": [1.0, float("nan"), 0.5]})
    (line,) = figure.axes[0].lines
    assert line.get_xdata().tolist() == [1, 2, 3]


@pytest.mark.backend_neutral
def test_curves_differ_in_their_markers():
    logs = {f"layer{index}/uniformity": [0.0, -1.0] for index in range(5)}
    lines = keras_dskd.plot_history(logs).axes[0].lines
    assert len({line.get_marker() for line in lines}) == 5


@pytest.mark.backend_neutral
def test_anything_but_a_history_raises():
    with pytest.raises(TypeError, match="Expected what `fit` returned.*list"):
        keras_dskd.plot_history([1.0])
    with pytest.raises(ValueError, match="has no epochs"):
        keras_dskd.plot_history({})


@pytest.mark.backend_neutral
def test_values_that_do_not_match_the_epochs_raise():
    logs = {"loss": [3.0, 2.0, 1.0], "val_loss": [2.0]}
    with pytest.raises(ValueError, match="validation_freq=1. Received: shape"):
        keras_dskd.plot_history(logs)
    assert keras_dskd.plot_history(logs, validation_freq=2)
