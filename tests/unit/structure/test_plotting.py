"""Figures of structure reports: their panels, texts and values."""

import dataclasses
import functools
import sys

import keras
import numpy as np
import pytest
from structure_model import images, model

import keras_dskd
from keras_dskd.structure.figures import (
    plot_structure,
    sphere_directions,
    sphere_points,
)

pytest.importorskip("matplotlib", reason="figures need matplotlib")

# Reports hold NumPy arrays on every backend: see test_structure.py.
pytestmark = pytest.mark.backend_neutral


@functools.cache
def measured(layers, classes):
    y = None if classes is None else np.arange(40) % classes
    return keras_dskd.structure_report(model(), images(), layers, y=y)


def report(name="net", layers=("map", "features"), classes=None):
    return dataclasses.replace(measured(tuple(layers), classes), name=name)


def panels(figure, axis_label=""):
    """The panels with this text in the label of an axis."""
    return [
        axes
        for axes in figure.axes
        if axis_label in axes.get_xlabel() + axes.get_ylabel()
    ]


def texts(legend):
    return [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_each_report_and_layer_has_two_panels_and_each_layer_one_spectrum(
    count,
):
    figure = plot_structure([report(f"net {index}") for index in range(count)])
    assert len(figure.axes) == 2 * (2 * count + 1)
    assert len(panels(figure, "mean off the diagonal")) == 2 * count
    assert len(panels(figure, "uniformity -")) == 2 * count
    assert len(panels(figure, "eigenvalue")) == 2


def test_every_panel_is_labeled():
    figure = report("before").plot(report("after"))
    for axes in figure.axes:
        assert axes.get_xlabel()
    titles = {axes.get_title() for axes in figure.axes}
    assert {"before\nmap", "after\nfeatures"} <= titles
    assert texts(figure.legends[0]) == ["before", "after", "independent channels"]


def test_the_matrix_shows_the_absolute_correlation():
    before = report(layers=["features"])
    figure = before.plot()
    shown = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(shown, np.abs(before.layers["features"].correlation))


def test_points_are_colored_and_labeled_by_class():
    figure = report(layers=["features"], classes=2).plot()
    (sphere,) = panels(figure, "uniformity -")
    points = sphere.collections[-1].get_facecolors()
    assert len({tuple(color) for color in points}) == 2
    # Readers who cannot distinguish the colors need the labels.
    assert {"0", "1"} <= {text.get_text() for text in sphere.texts}


def test_a_figure_is_saved_to_path(tmp_path):
    path = tmp_path / "structure.png"
    report().plot(path=path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_sphere_points_preserve_the_angles_of_three_dimensional_rows():
    rows = np.random.default_rng(0).normal(size=(20, 3)) * 7
    points, is_kept = sphere_points(rows)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert is_kept.all()
    # A rotation, up to reflections, preserves all inner products.
    np.testing.assert_allclose(points @ points.T, unit @ unit.T, atol=1e-12)


def test_rows_of_zeros_are_not_on_the_sphere():
    points, is_kept = sphere_points(np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 2.0]]))
    assert is_kept.tolist() == [True, False, True]
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1)


def test_reports_with_different_numbers_of_layers_raise():
    with pytest.raises(ValueError, match="same number of layers"):
        plot_structure([report(), report(layers=["map"])])


def test_a_single_channel_is_drawn():
    net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, name="one")])
    x = np.random.default_rng(0).normal(size=(9, 3)).astype("float32")
    figure = keras_dskd.structure_report(net, x, "one").plot()
    assert len(figure.axes) == 3


def test_dead_channels_are_gray_and_counted():
    net, x = model(), images()
    kernel, bias = net.get_layer("map").get_weights()
    kernel[..., 0] = 0
    net.get_layer("map").set_weights([kernel, bias])
    figure = keras_dskd.structure_report(net, x, "features").plot()
    (matrix,) = panels(figure, "1 dead (gray)")
    shown = np.ma.getmaskarray(matrix.images[0].get_array())
    assert shown[0].all() and shown[:, 0].all() and not shown[1:, 1:].any()


def test_at_most_128_channels_are_drawn_and_the_label_says_so():
    net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(300, name="wide")])
    x = np.random.default_rng(0).normal(size=(9, 3)).astype("float32")
    figure = keras_dskd.structure_report(net, x, "wide").plot()
    (matrix,) = panels(figure, "128 of 300 channels")
    assert matrix.images[0].get_array().shape == (128, 128)
    # The rank is 3: the other eigenvalues are rounding errors and are not drawn.
    (spectrum,) = panels(figure, "eigenvalue")
    assert len(spectrum.lines[0].get_xdata()) == 3


@pytest.mark.parametrize("name", ["a$b", "$\\frac$", "long/" * 30])
def test_special_characters_in_names_are_drawn_literally(name, tmp_path):
    drawn = report(name, ["map"]).plot(path=tmp_path / "structure.png")
    title = drawn.axes[0].get_title().split("\n")[0].replace("\\$", "$")
    assert title.removeprefix("…") == name[-len(title.removeprefix("…")) :]


def test_other_rows_can_be_drawn_from_the_same_side():
    rows = np.random.default_rng(0).normal(size=(20, 5))
    directions = sphere_directions(rows)
    alone, _ = sphere_points(rows[:7], directions)
    together, _ = sphere_points(rows)
    np.testing.assert_allclose(alone, together[:7])
    np.testing.assert_allclose(directions @ directions.T, np.eye(3), atol=1e-12)


def test_plot_correlation_shows_both_matrices_and_the_difference_of_means(tmp_path):
    before, after = report("before"), report("after", classes=2)
    figure = before.plot_correlation(after, path=tmp_path / "correlation.png")
    assert (tmp_path / "correlation.png").read_bytes().startswith(b"\x89PNG")
    assert len(figure.axes) == 2 * 3
    first, second, distribution = figure.axes[:3]
    for axes, shown in ((first, before), (second, after)):
        np.testing.assert_allclose(
            axes.images[0].get_array(), np.abs(shown.layers["map"].correlation)
        )
    pearson = [
        np.abs(np.corrcoef(r.layers["map"].rows.T))[np.triu_indices(5, 1)].mean()
        for r in (before, after)
    ]
    assert distribution.get_title() == (
        f"mean {pearson[0]:.3f} to {pearson[1]:.3f}\n"
        f"difference {pearson[1] - pearson[0]:+.3f}"
    )
    assert texts(distribution.get_legend()) == ["before", "after"]


def test_reports_with_the_same_name_are_labeled_before_and_after():
    one = report(layers=["map"])
    legend = one.plot_correlation(one).axes[2].get_legend()
    assert texts(legend) == ["net, before", "net, after"]


def test_the_error_without_matplotlib_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install keras-dskd\[plot\]"):
        report().plot()
