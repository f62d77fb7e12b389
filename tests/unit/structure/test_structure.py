"""The structure report: its numbers and its table."""

import keras
import numpy as np
import pytest
import reference
from structure_model import images, model

import keras_dskd


@pytest.mark.parametrize("verbose, printed", [("auto", "2/2"), (2, "2/2"), (0, "")])
def test_progress_is_shown_as_predict_shows_it(verbose, printed, capsys):
    keras_dskd.structure_report(
        model(), images(), "features", batch_size=20, verbose=verbose
    )
    out = capsys.readouterr().out
    assert printed in out
    assert bool(out) == bool(printed)


def test_numbers_match_numpy_on_the_pooled_features():
    net, x = model(), images()
    report = keras_dskd.structure_report(net, x, "features")
    rows = keras.Model(net.input, net.get_layer("features").output).predict(
        x, verbose=0
    )
    measured = report.layers["features"]
    # 1e-4 is far above the rounding errors of float32, and far below real errors.
    np.testing.assert_allclose(measured.rows, rows, atol=1e-6)
    pearson = np.corrcoef(rows.astype("float64").T)
    np.testing.assert_allclose(measured.correlation, pearson, atol=1e-4)
    assert measured.mean_correlation == pytest.approx(
        np.abs(pearson[~np.eye(5, dtype=bool)]).mean(), abs=1e-4
    )
    assert measured.uniformity == pytest.approx(
        reference.spatial_uniformity(rows.astype("float64")), abs=1e-4
    )
    assert measured.effective_rank == pytest.approx(
        reference.effective_rank(rows.astype("float64")), abs=1e-3
    )
    assert measured.channels == 5
    # The eigenvalues of a correlation matrix sum to the number of its channels.
    assert measured.eigenvalues.sum() == pytest.approx(5, abs=1e-4)
    assert (np.diff(measured.eigenvalues) <= 1e-9).all()


def test_feature_maps_are_pooled_over_positions():
    net, x = model(), images()
    report = keras_dskd.structure_report(net, x, ["map", "features"])
    np.testing.assert_allclose(
        report.layers["map"].rows, report.layers["features"].rows, atol=1e-6
    )


def test_dead_channels_are_counted():
    net = model()
    kernel, bias = net.get_layer("map").get_weights()
    kernel[..., [0, 3]] = 0
    net.get_layer("map").set_weights([kernel, bias + 1])
    report = keras_dskd.structure_report(net, images(), "features")
    measured = report.layers["features"]
    assert measured.dead_channels == 2
    assert np.isfinite(measured.correlation).all()
    np.testing.assert_array_equal(measured.correlation[0], 0)


def test_accuracy_is_measured_on_the_final_output():
    net, x = model(), images()
    predicted = net.predict(x, verbose=0).argmax(axis=1)
    labels = predicted.copy()
    labels[:10] = (labels[:10] + 1) % 3
    report = keras_dskd.structure_report(net, x, "features", y=labels)
    assert report.accuracy == pytest.approx(0.75)
    one_hot = keras_dskd.structure_report(net, x, "features", y=np.eye(3)[labels])
    assert one_hot.accuracy == pytest.approx(0.75)


def test_structure_is_measured_on_at_most_max_samples():
    net, x = model(), images()
    report = keras_dskd.structure_report(net, x, "features", max_samples=10)
    assert report.layers["features"].rows.shape == (10, 5)


def test_the_model_is_unchanged():
    net, x = model(), images()
    before = net.get_weights()
    keras_dskd.structure_report(net, x, ["map", "features"])
    assert all("call" not in vars(layer) for layer in net.layers)
    for old, new in zip(before, net.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_summary_prints_one_line_per_layer(capsys):
    net, x = model(), images()
    report = keras_dskd.structure_report(
        net, x, ["map", "features"], y=np.zeros(40), verbose=0
    )
    report.summary(report)
    lines = capsys.readouterr().out.strip().split("\n")
    assert lines[0].split()[:2] == ["model", "layer"]
    assert [line.split()[:3] for line in lines[2:]] == 2 * [
        ["net", "map", "5"],
        ["net", "features", "5"],
    ]
    assert lines[2].endswith("%")


@pytest.mark.parametrize("width", [40, 80])
def test_summary_fits_a_narrow_terminal(width, capsys, monkeypatch):
    monkeypatch.setattr("keras_dskd.structure.report.terminal_width", lambda: width)
    report = keras_dskd.structure_report(model(), images(), "features", verbose=0)
    report.summary()
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    written = "".join("".join(lines).split())
    for number in ("net", "5", f"{report.layers['features'].effective_rank:.1f}"):
        assert number in written


def test_summary_does_not_read_names_as_markup(capsys):
    report = keras_dskd.structure_report(
        model(), images(), "features", name="[red] :star:", verbose=0
    )
    report.summary()
    assert capsys.readouterr().out.splitlines()[2].startswith("[red] :star:  features")


def test_to_dict_returns_plain_python_values():
    report = keras_dskd.structure_report(model(), images(), "features")
    measured = report.to_dict()["layers"]["features"]
    assert set(map(type, measured.values())) == {int, float}


def test_an_unknown_layer_raises():
    with pytest.raises(ValueError, match='Tap "featres" not found.*"features"'):
        keras_dskd.structure_report(model(), images(), "featres")


@pytest.mark.parametrize("shape", [(40, 4, 4, 3), (40, 4)])
def test_an_input_of_the_wrong_shape_raises(shape):
    with pytest.raises(ValueError) as raised:
        keras_dskd.structure_report(model(), np.zeros(shape, "float32"), "features")
    assert str(raised.value) == (
        "The input does not fit the model 'net'. Expected shape: (None, 4, 4, 1). "
        f"Received: x.shape={shape}."
    )


def test_an_empty_list_of_layers_raises():
    with pytest.raises(ValueError, match="at least one layer"):
        keras_dskd.structure_report(model(), images(), [])


@pytest.mark.parametrize("form", ["indices", "one-hot", "last axis of 1"])
def test_dense_predictions_are_scored_per_position(form):
    inputs = keras.Input((4, 4, 1))
    features = keras.layers.Conv2D(5, 3, padding="same", name="features")(inputs)
    net = keras.Model(inputs, keras.layers.Conv2D(3, 1, name="logits")(features))
    x = np.random.default_rng(0).normal(size=(9, 4, 4, 1)).astype("float32")
    y = net.predict(x, verbose=0).argmax(axis=-1)
    y[:, 0] = (y[:, 0] + 1) % 3  # A quarter of the positions is wrong.
    forms = {"indices": y, "one-hot": np.eye(3)[y], "last axis of 1": y[..., None]}
    for layers in ("features", ["features", "logits"]):
        report = keras_dskd.structure_report(net, x, layers, y=forms[form], verbose=0)
        assert report.accuracy == pytest.approx(0.75)
        assert report.labels is None
        report.plot()
    with pytest.raises(ValueError, match=r"indices of rank 3.*\(9, 3\)"):
        keras_dskd.structure_report(net, x, "features", y=np.eye(3)[y[:, 0, 0]])


def test_accuracy_with_the_output_among_the_layers():
    net, x = model(), images()
    y = net.predict(x, verbose=0).argmax(axis=-1)
    report = keras_dskd.structure_report(net, x, "(output)", y=y)
    assert report.accuracy == 1.0
    assert report.layers["(output)"].channels == 3


def test_accuracy_of_several_outputs_raises():
    inputs = keras.Input((3,))
    heads = [keras.layers.Dense(2, name=name)(inputs) for name in ("one", "two")]
    net = keras.Model(inputs, heads)
    x = np.random.default_rng(0).normal(size=(9, 3)).astype("float32")
    with pytest.raises(ValueError, match="Received: a model with several outputs"):
        keras_dskd.structure_report(net, x, "one", y=np.ones(9))


def test_a_wrong_number_of_labels_raises():
    with pytest.raises(ValueError, match="one label per prediction"):
        keras_dskd.structure_report(model(), images(), "features", y=np.zeros(39))


def test_a_single_sample_raises():
    with pytest.raises(ValueError, match="at least 2 rows"):
        keras_dskd.structure_report(model(), images(1), "features")


def test_accuracy_of_a_single_output_raises():
    net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, name="one")])
    x = np.random.default_rng(0).normal(size=(9, 3)).astype("float32")
    with pytest.raises(ValueError, match="but the output has one column"):
        keras_dskd.structure_report(net, x, "one", y=np.ones(9))


def test_nan_features_raise():
    with pytest.raises(ValueError, match="must be finite. Received 5 NaN or infinite"):
        x = images()
        x[0] = np.nan
        keras_dskd.structure_report(model(), x, "features")


def test_repr_shows_the_table_of_a_report_and_the_numbers_of_a_layer():
    report = keras_dskd.structure_report(model(), images(16), ["features"], verbose=0)
    printed = []
    report.summary(print_fn=printed.append)
    assert [repr(report)] == printed
    assert repr(report.layers["features"]).startswith(
        "<FeatureStructure of 16 samples, "
    )
