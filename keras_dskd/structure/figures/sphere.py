"""Features on the unit sphere, turned so that the eye sees most of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def sphere_directions(rows: NDArray[Any]) -> NDArray[np.float64]:
    """The directions that unit rows share most, strongest first.

    They are not centred, as `spatial_uniformity` is not: the first is about the mean
    direction of the features.

    Args:
        rows: `(n, c)`.

    Returns:
        `(k, c)` orthonormal directions, k at most 3; each has most features on its
        positive side.
    """
    unit, _ = _unit(rows)
    if not len(unit):
        return np.zeros((0, unit.shape[1]))
    _, _, directions = np.linalg.svd(unit, full_matrices=False)
    strongest: NDArray[np.float64] = directions[:3]
    # A direction's sign is arbitrary: most features point to the viewer.
    signs = np.where((unit @ strongest.T).mean(0) < 0, -1.0, 1.0)
    return strongest * signs[:, None]


def sphere_points(
    rows: NDArray[Any], directions: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Unit rows in the space of three directions, on its sphere.

    Rows of zeros are left out. Rows orthogonal to all directions are at the origin.

    Args:
        rows: `(n, c)`.
        directions: `(k, c)`, k at most 3. Defaults to `sphere_directions(rows)`; give
            those of other rows to see both from the same side.

    Returns:
        `(m, 3)` points of unit length, and `(n,)` which rows they are.
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
