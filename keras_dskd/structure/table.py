"""The table of `StructureReport.summary`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def structure_table(reports: Iterable[Any]) -> str:
    """Numbers of `StructureReport`s as text, one line a layer."""
    header = (
        "model",
        "layer",
        "channels",
        "mean |off-diag. corr.|",
        "uniformity",
        "effective rank",
        "dead channels",
        "accuracy",
    )
    lines = [header]
    for report in reports:
        for layer, feature in report.layers.items():
            accuracy = "" if report.accuracy is None else f"{report.accuracy:.2%}"
            lines.append(
                (
                    report.name,
                    layer,
                    str(feature.channels),
                    f"{feature.mean_correlation:.3f}",
                    f"{feature.uniformity:.3f}",
                    f"{feature.effective_rank:.1f}",
                    str(feature.dead_channels),
                    accuracy,
                )
            )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(
            cell.ljust(width) if index < 2 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([text[0], "-" * max(map(len, text)), *text[1:]])
