"""What all figures share: colors, curve styles, short names, and saving."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

#: Colors that color-blind readers can distinguish: Okabe and Ito's, and two more.
COLORS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#F0E442",
    "#999999",
    "#882255",
)
#: Curves also differ in dashes and markers, for prints without color.
DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def curve_style(index: int, points: int) -> dict[str, Any]:
    """Color, dashes and markers of a curve, as options of `Axes.plot`.

    Each curve has about ten markers, and starts them at a different point, so that
    curves that coincide do not hide each other's markers.

    Args:
        index: Number of the curve in the figure, from 0.
        points: Number of points of the curve.
    """
    every = max(points // 10, 1)
    return {
        "color": COLORS[:7][index % 7],
        "linestyle": DASHES[index % len(DASHES)],
        "marker": MARKERS[index % len(MARKERS)],
        "markevery": (index % every, every),
        "markersize": 4,
        "linewidth": 1.5,
    }


def short(name: str, length: int = 24) -> str:
    """Shorten a long name to its end: the ends of layer paths differ most."""
    cut = name if len(name) <= length else "…" + name[-length + 1 :]
    # matplotlib typesets text between two dollar signs as a formula.
    return cut.replace("$", r"\$")


def count_ticks(axis: Axis, most: int = 8) -> None:
    """Put at most this many ticks on an axis, at whole numbers."""
    from matplotlib.ticker import MaxNLocator

    steps = [1, 2, 5, 10]
    axis.set_major_locator(MaxNLocator(most, steps=steps, integer=True, min_n_ticks=1))


def new_figure(width: float, height: float) -> Figure:
    """An empty figure. Width and height are in inches.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Figures need matplotlib. Install it with: pip install keras-dskd[plot]"
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, path: str | os.PathLike[str] | None) -> Figure:
    """Save the figure if there is a path. Returns the figure."""
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure
