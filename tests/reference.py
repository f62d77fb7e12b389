"""Every formula in float64 NumPy, written from its paper. Never imports the package.

Sources: Barlow Twins (arXiv 2103.03230, equations 1 and 2), VICReg (2105.04906,
equation 3), Wang and Isola (2005.10242), Hinton et al. (1503.02531), RankMe
(2210.02885, equations 1 and 2).
"""

import numpy as np


def samples(*shape, seed=0):
    """Normal numbers in float64 that float32 represents exactly."""
    drawn = np.random.default_rng(seed).normal(size=shape)
    return drawn.astype("float32").astype("float64")


def rows(feature, kind="pooled", channels_first=False):
    feature = np.asarray(feature, "float64")
    if channels_first and feature.ndim > 3:
        feature = np.moveaxis(feature, 1, -1)
    n, c = feature.shape[0], feature.shape[-1]
    positions = feature.reshape(n, -1, c)
    if kind == "pooled":
        return positions.sum(axis=1) / positions.shape[1]
    if kind == "flattened":
        return positions.reshape(n, -1)
    return positions.reshape(-1, c)


def standardize(x, epsilon=1e-5):
    x = np.asarray(x, "float64")
    x = x - x[:1]  # changes no deviation, and makes constant channels exactly 0
    deviation = x - x.sum(axis=0) / len(x)
    variance = (deviation**2).sum(axis=0) / len(x)
    return deviation / np.sqrt(variance + epsilon)


def cross_correlation(teacher, student, epsilon=1e-5):
    z_teacher, z_student = standardize(teacher, epsilon), standardize(student, epsilon)
    return np.einsum("bi,bj->ij", z_teacher, z_student) / len(z_teacher)


def channel_correlation(x, epsilon=1e-5):
    return cross_correlation(x, x, epsilon)


def off_diagonal_energy(x, epsilon=1e-5):
    correlation = channel_correlation(x, epsilon)
    c = len(correlation)
    if c == 1:
        return 0.0
    return _off_diagonal(correlation) / (c * (c - 1))


def channel_alignment(teacher, student, epsilon=1e-5):
    diagonal = np.diagonal(cross_correlation(teacher, student, epsilon))
    return ((1 - diagonal) ** 2).sum() / len(diagonal)


def cross_off_diagonal_energy(teacher, student, epsilon=1e-5):
    correlation = cross_correlation(teacher, student, epsilon)
    return _off_diagonal(correlation) / len(correlation)


def guided_channel_independence(
    teacher, student, off_diagonal_weight=0.02, epsilon=1e-5
):
    correlation = cross_correlation(teacher, student, epsilon)
    c = len(correlation)
    total = 0.0
    for i in range(c):
        for j in range(c):
            if i == j:
                total += (1 - correlation[i, i]) ** 2
            else:
                total += off_diagonal_weight * correlation[i, j] ** 2
    return total / c


def _off_diagonal(matrix):
    c = len(matrix)
    return sum(matrix[i, j] ** 2 for i in range(c) for j in range(c) if i != j)


def normalize(x):
    x = np.asarray(x, "float64")
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    return np.divide(x, lengths, out=np.zeros_like(x), where=lengths > 0)


def spatial_uniformity(x, temperature=2.0):
    u = normalize(x)
    first, second = np.triu_indices(len(u), k=1)
    squared_distances = ((u[first] - u[second]) ** 2).sum(axis=1)
    return np.log(np.mean(np.exp(-temperature * squared_distances)))


def log_softmax(logits):
    logits = np.asarray(logits, "float64")
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def softmax(logits):
    return np.exp(log_softmax(logits))


def soft_targets(teacher, student, temperature=4.0):
    log_p = log_softmax(np.asarray(teacher, "float64") / temperature)
    log_q = log_softmax(np.asarray(student, "float64") / temperature)
    divergence = (np.exp(log_p) * (log_p - log_q)).sum(axis=-1)
    return temperature**2 * divergence.mean()


def effective_rank(x):
    sigma = np.linalg.svd(np.asarray(x, "float64"), compute_uv=False)
    p = (sigma / sigma.sum() if sigma.sum() > 0 else sigma) + 1e-7
    return np.exp(-(p * np.log(p)).sum())


def centered_effective_rank(x):
    x = np.asarray(x, "float64")
    return effective_rank(x - x.mean(axis=0))


def finite_difference(f, x, step=1e-6):
    """Gradient of a scalar function by central differences in float64."""
    x = np.array(x, "float64")
    gradient = np.empty_like(x)
    for index in np.ndindex(x.shape):
        value = x[index]
        x[index] = above = value + step
        f_above = f(x)
        x[index] = below = value - step
        f_below = f(x)
        x[index] = value
        gradient[index] = (f_above - f_below) / (above - below)
    return gradient
