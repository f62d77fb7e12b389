"""Structure reports as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import keras
import numpy as np
from numpy.typing import NDArray

from keras_dskd.internal.version import __version__
from keras_dskd.structure import figures
from keras_dskd.structure.figures.reports import Feature, Report, layers_side_by_side

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Column -> what it is, in a sentence or two.
COLUMNS = {
    "samples": "Samples that the structure was measured on, of those in the data.",
    "channels": "Width of the layer's features, pooled over positions.",
    "mean |correlation|": "Mean of the absolute Pearson correlation over pairs of "
    "different channels, from 0 to 1. Lower: channels are more independent.",
    "uniformity": "Natural logarithm of the mean of exp(-2 d²) over pairs of samples, "
    "d being their distance on the unit sphere; 0 where all features point the same "
    "way. Lower: features are spread more evenly.",
    "effective rank": "Number of directions that features take up (RankMe), from 1 to "
    "the smaller of samples and channels. Higher: more of the width is used.",
    "dead channels": "Channels that do not vary over the samples. Lower is better.",
    "accuracy": "Share of all samples whose most likely class is their label, in "
    "percent. Higher is better. Empty without labels.",
}

#: Panel -> how to read it.
PANELS = {
    "Matrices": "|Correlation| of each channel with each. Off the diagonal dark is "
    "independent, light tells the same; dead channels are grey.",
    "Spheres": "Features scaled to unit length, in their three strongest directions, "
    "seen along the first. Circles are 30, 60 and 90 degrees away from it; what lies "
    "behind is pale. A number stands at the mean of its class.",
    "Curves": "Eigenvalues of the correlation matrix, largest first. Those of "
    "independent channels are all 1; the steeper, the fewer directions are used.",
}

STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem; color: #1a1a1a; background: #fff; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; }
caption, figcaption { text-align: left; color: #555; }
th, td { padding: .3rem .35rem; border-bottom: 1px solid #ccc; text-align: right;
  font-size: .85rem; }
th[scope=row], thead th:nth-child(-n+2) { text-align: left; }
thead th { vertical-align: bottom; } th[scope=row] { font-weight: normal; }
td { font-variant-numeric: tabular-nums; white-space: nowrap; }
dt { font-weight: 600; } dd { margin: 0 0 .5rem 1.5rem; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
footer { margin-top: 3rem; color: #555; }
@media (prefers-color-scheme: dark) {
  body { color: #e6e6e6; background: #16181c; } th, td { border-color: #444; }
  caption, figcaption, footer { color: #aaa; }
}
"""


class MeasuredReport(Report, Protocol):
    """What is read of a report beside its figures; see `structure.StructureReport`."""

    @property
    def accuracy(self) -> float | None: ...
    @property
    def samples(self) -> int: ...


class OneLayer(NamedTuple):
    """The part of a report that one figure shows."""

    name: str
    layers: Mapping[str, Feature]
    labels: NDArray[np.integer[Any]] | None


def html_report(reports: Sequence[MeasuredReport], title: str | None = None) -> str:
    """Reports side by side as an HTML document: numbers, what they mean, figures.

    Args:
        reports: `StructureReport`s with the same number of layers.
        title: Title of the document. Defaults to the reports' names.

    Returns:
        The document. It holds its pictures, runs no script, and loads nothing.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there are no reports, or their numbers of layers differ.
    """
    rows = layers_side_by_side(reports)
    names = ", ".join(report.name for report in reports)
    heading = escape(title or f"Structure of features: {names}")
    meanings = "\n".join(
        f"<dt>{escape(name)}</dt><dd>{escape(meaning)}</dd>"
        for name, meaning in COLUMNS.items()
    )
    readings = "\n".join(
        f"<dt>{escape(name)}</dt><dd>{escape(reading)}</dd>"
        for name, reading in PANELS.items()
    )
    sections = "\n".join(_section(reports, row) for row in rows)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{heading}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>{heading}</h1>
{_table(reports)}
<h2>What the numbers are</h2>
<dl>
{meanings}
</dl>
<h2>How to read the figures</h2>
<dl>
{readings}
</dl>
{sections}
</main>
<footer>keras_dskd {__version__}, Keras {keras.__version__},
backend {keras.backend.backend()}.</footer>
</body>
</html>
"""


def _table(reports: Sequence[MeasuredReport]) -> str:
    heads = "".join(
        f'<th scope="col">{escape(name)}</th>' for name in ("report", "layer", *COLUMNS)
    )
    lines = "\n".join(line for report in reports for line in _lines(report))
    return f"""<div class="wide" role="region" aria-label="Numbers" tabindex="0"><table>
<caption>One row for each report and layer.</caption>
<thead><tr>{heads}</tr></thead>
<tbody>
{lines}
</tbody>
</table></div>"""


def _lines(report: MeasuredReport) -> Iterator[str]:
    for layer, feature in report.layers.items():
        cells = [
            f"{len(feature.rows)} of {report.samples}",
            f"{feature.channels}",
            _number(feature.mean_correlation, ".3f"),
            _number(feature.uniformity, ".3f"),
            _number(feature.effective_rank, ".1f"),
            f"{feature.dead_channels}",
            "" if report.accuracy is None else _number(report.accuracy, ".2%"),
        ]
        heads = "".join(
            f'<th scope="row">{escape(text)}</th>' for text in (report.name, layer)
        )
        yield f"<tr>{heads}{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _number(value: float, digits: str) -> str:
    """A rounded number, and for programs all of it."""
    return f'<data value="{value!r}">{value:{digits}}</data>'


def _section(
    reports: Sequence[MeasuredReport], row: Sequence[tuple[str, Feature]]
) -> str:
    parts = [
        OneLayer(report.name, {layer: feature}, report.labels)
        for report, (layer, feature) in zip(reports, row, strict=True)
    ]
    # Layers that are compared may have different names.
    layers = ", ".join(dict.fromkeys(layer for layer, _ in row))
    names = " and ".join(report.name for report in reports)
    drawn = [
        _figure(
            figures.plot_structure(parts),
            f"Layer {layers} of {names}: correlations between channels, features on "
            "the unit sphere, and eigenvalues of the correlations.",
        )
    ]
    if len(parts) == 2:
        drawn.append(
            _figure(
                figures.plot_correlation(*parts),
                f"Layer {layers}: how correlations of {names} are distributed.",
            )
        )
    return "\n".join([f"<h2>Layer {escape(layers)}</h2>", *drawn])


def _figure(figure: Figure, what: str) -> str:
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=150)
    data = base64.b64encode(png.getvalue()).decode("ascii")
    width = round(96 * figure.get_figwidth())  # As matplotlib means it, in CSS pixels.
    return f"""<figure>
<img src="data:image/png;base64,{data}" width="{width}" alt="{escape(what)}">
<figcaption>{escape(what)}</figcaption>
</figure>"""
