"""The figure of `StructureReport.plot_correlation`: two reports, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_dskd.structure.figures import panels
from keras_dskd.structure.figures.reports import layers_side_by_side
from keras_dskd.structure.figures.style import COLORS, DASHES, new_figure, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from keras_dskd.structure.report import FeatureStructure, StructureReport

BINS = np.linspace(0, 1, 41)


def plot_correlation(before: StructureReport, after: StructureReport) -> Figure:
    """Compare the correlations between channels in two reports.

    The figure has one row of panels per layer: both matrices of |correlation|, and
    the distributions of their off-diagonal values with the difference of the means.

    Args:
        before: A `StructureReport`.
        after: Another report with the same number of layers.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If the numbers of layers differ.
    """
    rows = layers_side_by_side([before, after])
    names = [before.name, after.name]
    if before.name == after.name:
        names = [f"{before.name}, before", f"{after.name}, after"]
    figure = new_figure(8.6, 2.9 * len(rows))
    grid = figure.add_gridspec(len(rows), 3, width_ratios=[1, 1, 1.25])
    for row, features in enumerate(rows):
        for column, (name, (layer, feature)) in enumerate(
            zip(names, features, strict=True)
        ):
            axes = figure.add_subplot(grid[row, column])
            image = panels.draw_correlation(axes, feature)
            axes.set_title(f"{short(name)}\n{short(layer)}", fontsize=10)
            if column == 0:
                axes.set_ylabel("channel", fontsize=9)
        panels.add_color_bar(axes, image)
        (_, first), (_, second) = features
        axes = figure.add_subplot(grid[row, 2])
        _draw_distributions(axes, names, [first, second])
        difference = second.mean_correlation - first.mean_correlation
        axes.set_title(
            f"mean {first.mean_correlation:.3f} to {second.mean_correlation:.3f}\n"
            f"difference {difference:+.3f}",
            fontsize=10,
        )
    return figure


def _draw_distributions(
    axes: Axes, names: Sequence[str], features: Sequence[FeatureStructure]
) -> None:
    for name, feature, color, dashes in zip(
        names, features, COLORS[:2], DASHES[:2], strict=True
    ):
        above = np.triu_indices(feature.channels, k=1)
        values = np.abs(feature.correlation[above])
        counts, _ = np.histogram(np.minimum(values, 1), BINS)
        axes.stairs(
            counts / max(len(values), 1),
            BINS,
            color=color,
            linestyle=dashes,
            linewidth=1.5,
            label=short(name),
        )
        axes.axvline(
            feature.mean_correlation, color=color, linestyle=dashes, linewidth=1
        )
    axes.set_xlim(0, 1)
    axes.set_xlabel("|correlation|", fontsize=9)
    axes.set_ylabel("share of channel pairs", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=8, loc="upper right")
