"""The panels of the structure figures: matrix, sphere, eigenvalues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from keras_dskd.structure.figures.style import COLORS, count_ticks, curve_style, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

    from keras_dskd.structure.report import FeatureStructure

#: Draw at most this many channels; smaller cells would be invisible.
MOST_CHANNELS = 128
#: Smaller eigenvalues are rounding errors: with fewer samples than channels, the true
#: value is 0.
SMALLEST_EIGENVALUE = 1e-4


def draw_correlation(axes: Axes, feature: FeatureStructure) -> AxesImage:
    """Draw the matrix of |correlation|, with dead channels in gray."""
    from matplotlib import colormaps

    count = feature.channels
    picked = np.linspace(0, count - 1, min(count, MOST_CHANNELS)).astype(int)
    shown = np.abs(feature.correlation[np.ix_(picked, picked)])
    dead = np.diag(shown) < 0.5
    image = axes.imshow(
        np.ma.masked_where(dead[:, None] | dead[None, :], shown),
        cmap=colormaps["cividis"].with_extremes(bad="0.75"),
        vmin=0,
        vmax=1,
        extent=(-0.5, count - 0.5, count - 0.5, -0.5),
        interpolation="nearest",
    )
    notes = [f"mean off the diagonal {feature.mean_correlation:.2f}"]
    if feature.dead_channels:
        notes.append(f"{feature.dead_channels} dead (gray)")
    if count > MOST_CHANNELS:
        notes.append(f"{MOST_CHANNELS} of {count} channels")
    axes.set_xlabel("\n".join(notes), fontsize=9)
    axes.tick_params(labelsize=8)
    for axis in (axes.xaxis, axes.yaxis):
        count_ticks(axis, most=4)
    return image


def add_color_bar(axes: Axes, image: AxesImage) -> None:
    """Draw the color bar to the right of a matrix, as high as the matrix."""
    bar_axes = axes.inset_axes((1.05, 0.0, 0.05, 1.0), label="<colorbar>")
    bar = axes.figure.colorbar(image, cax=bar_axes)
    bar.set_label("|correlation|", fontsize=9)
    bar_axes.tick_params(labelsize=8)


def draw_sphere(
    axes: Axes,
    points: NDArray[np.float64],
    labels: NDArray[Any] | None,
    size: float = 7,
    degrees: int = 90,
) -> None:
    """Draw points on the unit sphere, looking along the first axis.

    Args:
        axes: The axes to draw on.
        points: Unit vectors `(n, 3)`; or `(n, 2)` for a circle whose first axis points
            up.
        labels: `(n,)`: the class of each point, which decides its color; or `None`.
            Up to ten classes are labeled at their means; with more classes, some share
            a color.
        size: Area of a point, in typographic points squared.
        degrees: Radius of the visible part: the largest angle to the line of sight.
    """
    is_behind = points[:, 0] < 0
    seen = points[:, 1:]
    _draw_circle(axes, degrees, color="0.5", linewidth=1.0)
    if points.shape[1] == 3:
        for ring in range(30, degrees, 30):
            _draw_circle(axes, ring, color="0.8", linewidth=0.5)
    else:
        is_behind[:] = False
        seen = points[:, ::-1]
    colors = np.array([COLORS[0]] * len(points))
    if labels is not None:
        colors = np.array([COLORS[label % len(COLORS)] for label in labels])
    for side, alpha in ((is_behind, 0.2), (~is_behind, 0.7)):
        x, y = seen[side].T
        axes.scatter(x, y, s=size, c=colors[side], alpha=alpha, linewidths=0)
    if labels is not None and len(np.unique(labels)) <= len(COLORS):
        _write_classes(axes, seen, labels)
    edge = 1.05 * np.sin(np.radians(degrees))
    axes.set(xlim=(-edge, edge), ylim=(-edge, edge), xticks=[], yticks=[])
    axes.set_aspect("equal")
    axes.spines[:].set_visible(False)


def _draw_circle(axes: Axes, degrees: float, **style: Any) -> None:
    turn = np.linspace(0, 2 * np.pi, 200)
    radius = np.sin(np.radians(degrees))
    axes.plot(radius * np.cos(turn), radius * np.sin(turn), zorder=0, **style)


def _write_classes(axes: Axes, seen: NDArray[np.float64], labels: NDArray[Any]) -> None:
    from matplotlib.patheffects import withStroke

    for label in np.unique(labels):
        axes.annotate(
            str(label),
            seen[labels == label].mean(axis=0),
            xytext=(0, 2),  # Above the mean: do not cover a narrow cluster.
            textcoords="offset points",
            fontsize=8,
            fontweight="bold",
            ha="center",
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )


def draw_eigenvalues(
    axes: Axes, curves: Sequence[tuple[str, FeatureStructure]]
) -> None:
    """Draw eigenvalues of correlation matrices, one curve per `(name, structure)`."""
    longest = max(feature.channels for _, feature in curves)
    for index, (name, feature) in enumerate(curves):
        values = feature.eigenvalues[feature.eigenvalues >= SMALLEST_EIGENVALUE]
        axes.semilogy(
            np.arange(1, len(values) + 1),
            values,
            label=short(name),
            **curve_style(index, len(values)),
        )
    axes.axhline(
        1,
        color="gray",
        linestyle=(0, (1, 2)),
        linewidth=1,
        label="independent channels",
    )
    axes.set_xlim(0, 1.02 * longest + 0.5)
    # Show at least one decade, so that the axis has two tick labels.
    axes.set_ylim(min(axes.get_ylim()[0], 0.08), max(axes.get_ylim()[1], 1.2))
    count_ticks(axes.xaxis)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    axes.tick_params(labelsize=8)
    axes.set_xlabel("index, largest first", fontsize=9)
    axes.set_ylabel("eigenvalue", fontsize=9)
    axes.grid(alpha=0.3)
