"""Gradients of the formulas, derived by hand, in float64 NumPy.

Never imports the package. Computes whole `(c, c)` and `(n, n)` matrices, as the
formulas are written.
"""

import numpy as np
import reference


def off_diagonal_energy(x, epsilon=1e-5):
    z = reference.standardize(x, epsilon)
    n, c = z.shape
    correlation = _without_diagonal(z.T @ z / n)
    upstream = 4.0 / n * z @ correlation / max(c * (c - 1), 1)
    return _through_standardize(x, z, upstream, epsilon)


def cross_off_diagonal_energy(teacher, x, epsilon=1e-5):
    z_teacher, z = (reference.standardize(rows, epsilon) for rows in (teacher, x))
    n, c = z.shape
    correlation = _without_diagonal(z_teacher.T @ z / n)  # (teacher's, student's)
    upstream = 2.0 / n * z_teacher @ correlation / c
    return _through_standardize(x, z, upstream, epsilon)


def spatial_uniformity(x, temperature=2.0):
    x = np.asarray(x, "float64")
    u = reference.normalize(x)
    differences = u[:, None, :] - u[None, :, :]  # (n, n, c)
    potentials = np.exp(-temperature * (differences**2).sum(axis=-1))
    np.fill_diagonal(potentials, 0.0)
    upstream = (-4.0 * temperature / potentials.sum()) * np.einsum(
        "ij,ijc->ic", potentials, differences
    )
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    radial = (upstream * u).sum(axis=1, keepdims=True) * u
    return np.divide(
        upstream - radial, lengths, out=np.zeros_like(x), where=lengths > 0
    )


def _through_standardize(x, z, upstream, epsilon):
    deviation = np.sqrt(np.var(np.asarray(x, "float64"), axis=0) + epsilon)
    mean, along = upstream.mean(axis=0), (upstream * z).mean(axis=0)
    return (upstream - mean - z * along) / deviation


def _without_diagonal(matrix):
    return matrix - np.diag(np.diagonal(matrix))
