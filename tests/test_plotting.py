"""Figures: what is on them, in words and in numbers."""

import keras
import numpy as np
import pytest
from test_structure import images, model

import keras_dskd
from keras_dskd.plotting import plot_structure, sphere_points

pytest.importorskip("matplotlib", reason="figures need matplotlib")


def report(name="net", layers=("map", "features"), y=None):
    return keras_dskd.structure_report(model(), images(), list(layers), y=y, name=name)


def panels(figure):
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]


def test_a_figure_has_two_panels_a_report_and_layer_and_one_spectrum_a_layer():
    figure = report("before").plot(report("after"))
    assert len(panels(figure)) == 2 * (2 * 2 + 1)


def test_every_panel_says_what_it_shows():
    figure = report("before").plot(report("after"))
    for axes in panels(figure):
        assert axes.get_xlabel()
    titles = {axes.get_title() for axes in panels(figure)}
    assert {"before\nmap", "after\nfeatures"} <= titles


def test_the_matrix_shown_is_the_absolute_correlation():
    before = report(layers=["features"])
    figure = before.plot()
    shown = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(shown, np.abs(before.layers["features"].correlation))


def test_points_are_coloured_by_class():
    figure = report(layers=["features"], y=np.arange(40) % 2).plot()
    colours = figure.axes[2].collections[0].get_facecolors()
    assert len({tuple(colour) for colour in colours}) == 2


def test_a_figure_is_written(tmp_path):
    path = tmp_path / "structure.png"
    report().plot(path=path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_sphere_points_keep_the_angles_of_three_dimensional_rows():
    rows = np.random.default_rng(0).normal(size=(20, 3)) * 7
    points, is_kept = sphere_points(rows)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert is_kept.all()
    # A rotation, up to reflections: all inner products stay.
    np.testing.assert_allclose(points @ points.T, unit @ unit.T, atol=1e-12)


def test_rows_of_zeros_are_left_off_the_sphere():
    points, is_kept = sphere_points(np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 2.0]]))
    assert is_kept.tolist() == [True, False, True]
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1)


def test_reports_of_different_depth_are_refused():
    with pytest.raises(ValueError, match="same number of layers"):
        plot_structure([report(), report(layers=["map"])])


def test_a_single_channel_is_drawn():
    net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, name="one")])
    x = np.random.default_rng(0).normal(size=(9, 3)).astype("float32")
    figure = keras_dskd.structure_report(net, x, "one").plot()
    assert len(panels(figure)) == 3
