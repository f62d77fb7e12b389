"""Match the layers of several reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_dskd.structure.report import FeatureStructure, StructureReport


def layers_side_by_side(
    reports: Sequence[StructureReport],
) -> list[list[tuple[str, FeatureStructure]]]:
    """Match the layers of reports by their order, whatever their names.

    Returns:
        One list per layer, with `(layer's name, structure)` of each report.

    Raises:
        ValueError: If there are no reports, or their numbers of layers differ.
    """
    if len({len(report.layers) for report in reports}) != 1:
        raise ValueError(
            "Reports drawn side by side must have the same number of layers. "
            "Received (name, number of layers): "
            f"{[(report.name, len(report.layers)) for report in reports]}"
        )
    return [
        list(row)
        for row in zip(*(report.layers.items() for report in reports), strict=True)
    ]
