"""The table of `StructureReport.summary`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from keras_dskd.internal import tables

if TYPE_CHECKING:
    from keras_dskd.structure.report import StructureReport

NAMES = ("model", "layer")
NUMBERS = (
    "channels",
    "mean |off-diag. corr.|",
    "uniformity",
    "effective rank",
    "dead channels",
    "accuracy",
)


def structure_table(
    reports: Iterable[StructureReport], width: int | None = None
) -> str:
    """The numbers of `StructureReport`s as text, one line per layer.

    Args:
        reports: The reports, from top to bottom.
        width: Length of the longest line; longer cells are wrapped. With `None`,
            nothing is wrapped.
    """
    rows = [
        (
            report.name,
            layer,
            str(feature.channels),
            f"{feature.mean_correlation:.3f}",
            f"{feature.uniformity:.3f}",
            f"{feature.effective_rank:.1f}",
            str(feature.dead_channels),
            "" if report.accuracy is None else f"{report.accuracy:.2%}",
        )
        for report in reports
        for layer, feature in report.layers.items()
    ]
    return tables.as_text(
        tables.table([*NAMES, *NUMBERS], rows, right_aligned=NUMBERS, framed=False),
        width,
    )
