"""What figures read of structure reports, and which layers they draw together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Feature(Protocol):
    """Structure of one layer's features; see `structure.FeatureStructure`."""

    @property
    def rows(self) -> NDArray[Any]: ...
    @property
    def correlation(self) -> NDArray[Any]: ...
    @property
    def eigenvalues(self) -> NDArray[Any]: ...
    @property
    def mean_correlation(self) -> float: ...
    @property
    def uniformity(self) -> float: ...
    @property
    def effective_rank(self) -> float: ...
    @property
    def dead_channels(self) -> int: ...
    @property
    def channels(self) -> int: ...


class Report(Protocol):
    """Structure of a model's features; see `structure.StructureReport`."""

    @property
    def name(self) -> str: ...
    @property
    def layers(self) -> Mapping[str, Any]: ...
    @property
    def labels(self) -> NDArray[np.integer[Any]] | None: ...


def layers_side_by_side(
    reports: Sequence[Report],
) -> list[list[tuple[str, Feature]]]:
    """For each layer of the reports in turn, its name and structure in each report.

    Raises:
        ValueError: If there are no reports, or their numbers of layers differ.
    """
    if len({len(report.layers) for report in reports}) != 1:
        raise ValueError(
            "Reports drawn side by side must have the same number of layers. "
            f"Received: {[(r.name, len(r.layers)) for r in reports]}"
        )
    return [
        list(row)
        for row in zip(*(report.layers.items() for report in reports), strict=True)
    ]
