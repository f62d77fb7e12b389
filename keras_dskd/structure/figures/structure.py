"""The figure of `StructureReport.plot`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from keras_dskd.structure.figures import panels
from keras_dskd.structure.figures.reports import layers_side_by_side
from keras_dskd.structure.figures.sphere import sphere_points
from keras_dskd.structure.figures.style import new_figure, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from keras_dskd.structure.report import FeatureStructure, StructureReport


def plot_structure(
    reports: Sequence[StructureReport], title: str | None = None
) -> Figure:
    """Draw reports side by side: correlations, features on the sphere, eigenvalues.

    Each layer has two rows of panels, with one column per report: the matrix of
    |correlation| between channels, and below it the features on the unit sphere,
    colored by class if labels are known. One more panel per layer shows the eigenvalues
    of all reports' correlation matrices: at the right of one or two reports, and below
    three or more, so that the figure stays narrow.

    Args:
        reports: `StructureReport`s with the same number of layers.
        title: Title of the figure.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there are no reports, or their numbers of layers differ.
    """
    rows = layers_side_by_side(reports)
    columns, bands = len(reports), 2 * len(rows)
    if columns <= 2:
        figure = new_figure(2.1 * columns + 4.1, 2.5 * bands)
        grid = figure.add_gridspec(
            bands, columns + 1, width_ratios=[1] * columns + [1.4]
        )
        spectra = [grid[band : band + 2, columns] for band in range(0, bands, 2)]
    else:
        figure = new_figure(2.1 * columns + 0.9, 2.5 * bands + 3)
        grid = figure.add_gridspec(
            bands + 1, columns, height_ratios=[1] * bands + [1.25]
        )
        below = grid[bands, :].subgridspec(1, len(rows))
        spectra = [below[0, index] for index in range(len(rows))]
    for index, features in enumerate(rows):
        matrices = [
            figure.add_subplot(grid[2 * index, column]) for column in range(columns)
        ]
        for axes, report, (layer, feature) in zip(
            matrices, reports, features, strict=True
        ):
            image = panels.draw_correlation(axes, feature)
            axes.set_title(f"{short(report.name)}\n{short(layer)}", fontsize=10)
        matrices[0].set_ylabel("channel", fontsize=9)
        panels.add_color_bar(matrices[-1], image)
        for column, (report, (_, feature)) in enumerate(
            zip(reports, features, strict=True)
        ):
            axes = figure.add_subplot(grid[2 * index + 1, column])
            _draw_sphere(axes, report, feature)
            if column == 0:
                axes.set_ylabel(
                    "features on the unit sphere\n(lower uniformity: more even)",
                    fontsize=9,
                )
        axes = figure.add_subplot(spectra[index])
        names = [report.name for report in reports]
        structures = [feature for _, feature in features]
        panels.draw_eigenvalues(axes, list(zip(names, structures, strict=True)))
        axes.set_title(f"Spread over dimensions\n{short(features[0][0])}", fontsize=10)
    figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=max(int(figure.get_figwidth() // 2.2), 1),
        fontsize=9,
    )
    if title:
        figure.suptitle(title)
    return figure


def _draw_sphere(
    axes: Axes, report: StructureReport, feature: FeatureStructure
) -> None:
    points, is_kept = sphere_points(feature.rows)
    if feature.channels < 3:
        points = points[:, :2]
    labels = None if report.labels is None else report.labels[is_kept]
    panels.draw_sphere(axes, points, labels)
    axes.set_xlabel(
        f"uniformity {feature.uniformity:.2f}\n"
        f"effective rank {feature.effective_rank:.1f} of {feature.channels}",
        fontsize=9,
    )
