"""Project features to a sphere in three dimensions, and choose the side to show."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def sphere_directions(rows: NDArray[Any]) -> NDArray[np.float64]:
    """The strongest directions of the rows after scaling them to unit length.

    These are the first right singular vectors. The rows are not centered, because
    `spatial_uniformity` does not center them either: the first direction is close to
    the mean direction of the features.

    Args:
        rows: `(n, c)`.

    Returns:
        `(k, c)`: orthonormal directions, k at most 3, strongest first. The mean of the
        features is on the positive side of each direction.
    """
    unit, _ = _unit(rows)
    if not len(unit):
        return np.zeros((0, unit.shape[1]))
    _, _, directions = np.linalg.svd(unit, full_matrices=False)
    strongest: NDArray[np.float64] = directions[:3]
    # The sign of a singular vector is arbitrary. Point the features at the viewer.
    signs = np.where((unit @ strongest.T).mean(0) < 0, -1.0, 1.0)
    return strongest * signs[:, None]


def sphere_points(
    rows: NDArray[Any], directions: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Project rows to three directions and scale them to unit length.

    Rows of zeros have no direction and are left out. Rows that are orthogonal to all
    directions become zeros.

    Args:
        rows: `(n, c)`.
        directions: `(k, c)`, k at most 3. Defaults to `sphere_directions(rows)`. Pass
            the directions of other rows to see both from the same side.

    Returns:
        `(points, is_kept)`: points of unit length `(m, 3)`, and `(n,)`, `True` for the
        rows that are among the points.
    """
    unit, is_kept = _unit(rows)
    if directions is None:
        directions = sphere_directions(rows)
    points = np.zeros((len(unit), 3))
    points[:, : len(directions)] = unit @ directions.T
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    return points / np.maximum(lengths, 1e-12), is_kept


def _unit(rows: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    rows = np.asarray(rows, "float64")
    lengths = np.linalg.norm(rows, axis=1)
    is_kept = lengths > 0
    return rows[is_kept] / lengths[is_kept, None], is_kept
