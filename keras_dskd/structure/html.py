"""Structure reports as one self-contained HTML page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING

import keras

from keras_dskd.internal.version import __version__
from keras_dskd.structure import figures
from keras_dskd.structure.figures.reports import layers_side_by_side

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_dskd.structure.report import FeatureStructure, StructureReport

#: Column -> its explanation on the page.
COLUMNS = {
    "samples": "Number of samples that the structure was measured on, of all samples "
    "in the data.",
    "channels": "Number of channels of the layer. Feature maps are averaged over their "
    "positions.",
    "mean |correlation|": "Mean absolute Pearson correlation between different "
    "channels, from 0 to 1. Lower values: the channels are more independent.",
    "uniformity": "Natural logarithm of the mean of exp(-2 d²) over pairs of samples, "
    "where d is the distance between their features after scaling to unit length. It "
    "is 0 if all features point in the same direction. Lower values: the features are "
    "spread more evenly.",
    "effective rank": "Number of directions that the features use (RankMe), from 1 to "
    "the number of channels or samples, whichever is smaller. Higher values: the "
    "features use more of the available dimensions.",
    "dead channels": "Number of channels that do not vary over the samples. Lower is "
    "better.",
    "accuracy": "Percentage of all samples that are classified correctly. Higher is "
    "better. Empty without labels.",
}

#: Panel -> its explanation on the page.
PANELS = {
    "Matrices": "Absolute correlation between each pair of channels. Off the diagonal, "
    "dark means independent and light means redundant. Dead channels are gray.",
    "Spheres": "Features scaled to unit length and projected to their three strongest "
    "directions, seen along the first direction. Circles mark angles of 30, 60 and 90 "
    "degrees to it; points behind the sphere are pale. Each class is labeled at the "
    "mean of its points.",
    "Curves": "Eigenvalues of the correlation matrix, largest first. For independent "
    "channels they are all 1. A steep curve means that few directions are used.",
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


def html_report(reports: Sequence[StructureReport], title: str | None = None) -> str:
    """Lay out reports as an HTML page: the numbers, their meaning, and the figures.

    Args:
        reports: `StructureReport`s with the same number of layers.
        title: Title of the page. Defaults to the reports' names.

    Returns:
        The page's source. It is self-contained: the figures are embedded, and it runs
        no scripts and loads no other files.

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
<h2>What the numbers mean</h2>
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


def _table(reports: Sequence[StructureReport]) -> str:
    heads = "".join(
        f'<th scope="col">{escape(name)}</th>' for name in ("report", "layer", *COLUMNS)
    )
    lines = "\n".join(line for report in reports for line in _lines(report))
    return f"""<div class="wide" role="region" aria-label="Numbers" tabindex="0"><table>
<caption>One row per report and layer.</caption>
<thead><tr>{heads}</tr></thead>
<tbody>
{lines}
</tbody>
</table></div>"""


def _lines(report: StructureReport) -> Iterator[str]:
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
    """A rounded number, with the exact value in an attribute for programs."""
    return f'<data value="{value!r}">{value:{digits}}</data>'


def _section(
    reports: Sequence[StructureReport], row: Sequence[tuple[str, FeatureStructure]]
) -> str:
    parts = [
        replace(report, layers={layer: feature})
        for report, (layer, feature) in zip(reports, row, strict=True)
    ]
    # The layers that are compared may have different names.
    layers = ", ".join(dict.fromkeys(layer for layer, _ in row))
    names = " and ".join(report.name for report in reports)
    drawn = [
        _figure(
            figures.plot_structure(parts),
            f"Layer {layers} of {names}: correlations between channels, features on "
            "the unit sphere, and eigenvalues of the correlation matrices.",
        )
    ]
    if len(parts) == 2:
        drawn.append(
            _figure(
                figures.plot_correlation(*parts),
                f"Layer {layers} of {names}: distributions of channel correlations.",
            )
        )
    return "\n".join([f"<h2>Layer {escape(layers)}</h2>", *drawn])


def _figure(figure: Figure, what: str) -> str:
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=150)
    data = base64.b64encode(png.getvalue()).decode("ascii")
    width = round(96 * figure.get_figwidth())  # Inches to CSS pixels.
    return f"""<figure>
<img src="data:image/png;base64,{data}" width="{width}" alt="{escape(what)}">
<figcaption>{escape(what)}</figcaption>
</figure>"""
