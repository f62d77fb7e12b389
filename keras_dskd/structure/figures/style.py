"""What all figures share: colours, curves, names, and the way to a file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

#: Okabe and Ito's colours and two more, told apart by colour-blind readers.
COLOURS = (
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
#: Curves differ in dashes and markers too: prints and screens may show no colours.
DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def curve_style(index: int, points: int) -> dict[str, Any]:
    """Colour, dashes and marker of a figure's n-th curve, of so many points.

    Every curve has some ten markers, each beginning at another point, so that none
    hides those of the curve below.
    """
    every = max(points // 10, 1)
    return {
        "color": COLOURS[:7][index % 7],
        "linestyle": DASHES[index % len(DASHES)],
        "marker": MARKERS[index % len(MARKERS)],
        "markevery": (index % every, every),
        "markersize": 4,
        "linewidth": 1.5,
    }


def short(name: str, length: int = 24) -> str:
    """A name that fits above a panel: its end, which tells layers apart."""
    cut = name if len(name) <= length else "…" + name[-length + 1 :]
    # Between two of them matplotlib would read mathematics.
    return cut.replace("$", r"\$")


def count_ticks(axis: Axis, most: int = 8) -> None:
    """Ticks at whole numbers, so many at most."""
    from matplotlib.ticker import MaxNLocator

    steps = [1, 2, 5, 10]
    axis.set_major_locator(MaxNLocator(most, steps=steps, integer=True, min_n_ticks=1))


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches.

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


def saved(figure: Figure, path: str | os.PathLike[str] | None) -> Figure:
    """The figure, also written to a file where a path is given."""
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure
