"""Every formula in float64 NumPy, written from its paper.

Never imports the package. Sources: Barlow Twins (arXiv 2103.03230, equations 1 and 2),
VICReg (2105.04906, equation 3), Wang and Isola (2005.10242), Hinton et al.
(1503.02531), RankMe (2210.02885, equations 1 and 2), and the papers in the docstrings.
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
    x = x - x[:1]  # leaves deviations unchanged, and makes constant channels exactly 0
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


def auto_temperature(teacher):
    """The T in [2, 4] at which the highest probability averages 0.6.

    The average is interpolated between three temperatures, linearly in log T.
    """
    teacher = np.asarray(teacher, "float64")
    exponents = np.linspace(1, 2, 3)
    average = [
        np.exp(log_softmax(teacher / 2**e)).max(axis=-1).mean() for e in exponents
    ]
    return 2 ** np.interp(-0.6, -np.array(average), exponents)


def binary_soft_targets(teacher, student, temperature=4.0):
    """Hinton et al. 2015, for the two classes of each label, one by one."""
    values = []
    for t, s in zip(np.ravel(teacher), np.ravel(student), strict=True):
        pair = np.array([[t, 0.0]], "float64"), np.array([[s, 0.0]], "float64")
        values.append(soft_targets(*pair, temperature))
    return np.mean(values)


def hard_targets(teacher, student):
    """DeiT, arXiv 2012.12877, equation 3, the second term."""
    log_q = log_softmax(student)
    positions = list(np.ndindex(log_q.shape[:-1]))
    return np.mean([-log_q[i][np.argmax(teacher[i])] for i in positions])


def regression_targets(teacher, student):
    difference = np.asarray(teacher, "float64") - np.asarray(student, "float64")
    return (difference**2).sum() / difference.size


def bounded_regression(teacher, student, labels, margin=0.0):
    """Chen et al. 2017, equation 4, with means for squared norms."""
    total = 0.0
    positions = list(np.ndindex(np.shape(student)[:-1]))
    for i in positions:
        teacher_error = ((teacher[i] - labels[i]) ** 2).mean()
        student_error = ((student[i] - labels[i]) ** 2).mean()
        total += student_error if student_error + margin > teacher_error else 0.0
    return total / len(positions)


def channel_wise_distillation(teacher, student, temperature=4.0):
    """CWD, arXiv 2011.13256: per channel a distribution over positions."""
    total = 0.0
    n, c = len(teacher), np.shape(teacher)[-1]
    for b in range(n):
        for k in range(c):
            pair = (np.reshape(x[b][..., k], (1, -1)) for x in (teacher, student))
            total += soft_targets(*pair, temperature)
    return total / (n * c)


def effective_rank(x):
    sigma = np.linalg.svd(np.asarray(x, "float64"), compute_uv=False)
    p = (sigma / sigma.sum() if sigma.sum() > 0 else sigma) + 1e-7
    return np.exp(-(p * np.log(p)).sum())


def centered_effective_rank(x):
    x = np.asarray(x, "float64")
    return effective_rank(x - x.mean(axis=0))


def decoupled_distillation(
    teacher, student, labels, temperature=4.0, target_weight=1.0, non_target_weight=8.0
):
    """Zhao et al. 2022, arXiv 2203.08679, equations 1 to 7."""
    p = softmax(np.asarray(teacher, "float64") / temperature)
    q = softmax(np.asarray(student, "float64") / temperature)
    total = 0.0
    for p_i, q_i, y in zip(p, q, labels, strict=True):
        others = [k for k in range(len(p_i)) if k != y]
        p_rest, q_rest = p_i[others].sum(), q_i[others].sum()
        target = p_i[y] * np.log(p_i[y] / q_i[y])
        target += p_rest * np.log(p_rest / q_rest)
        p_hat, q_hat = p_i[others] / p_rest, q_i[others] / q_rest
        non_target = (p_hat * np.log(p_hat / q_hat)).sum()
        total += target_weight * target + non_target_weight * non_target
    return temperature**2 * total / len(p)


def standardized_distance(teacher, student, epsilon=1e-5):
    """FitNets, arXiv 1412.6550, equation 3, of standardized features."""
    difference = standardize(teacher, epsilon) - standardize(student, epsilon)
    return (difference**2).sum() / difference.size


def attention_transfer(teacher, student):
    """Zagoruyko and Komodakis 2017, arXiv 1612.03928, section 3.1, squared norm."""
    total = 0.0
    for maps in zip(teacher, student, strict=True):
        attentions = [(np.asarray(m, "float64") ** 2).mean(axis=-1) for m in maps]
        units = [a.ravel() / np.linalg.norm(a) for a in attentions]
        total += ((units[0] - units[1]) ** 2).sum()
    return total / len(teacher)


def huber(x):
    return 0.5 * x**2 if abs(x) <= 1 else abs(x) - 0.5


def relational_distance(teacher, student):
    """Park et al. 2019, RKD, arXiv 1904.05068, equations 4 to 7."""
    n = len(teacher)
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    relative = []
    for x in (teacher, student):
        lengths = np.array([np.linalg.norm(x[i] - x[j]) for i, j in pairs])
        relative.append(lengths / lengths.mean())
    return np.mean([huber(t - s) for t, s in zip(*relative, strict=True)])


def relational_angle(teacher, student):
    """Park et al. 2019, RKD, arXiv 1904.05068, equations 8 to 10."""
    n = len(teacher)
    losses = []
    for i, j, k in np.ndindex(n, n, n):
        if len({i, j, k}) == 3:
            cosines = []
            for x in (teacher, student):
                a, b = x[i] - x[j], x[k] - x[j]
                cosines.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
            losses.append(huber(cosines[0] - cosines[1]))
    return np.mean(losses)


def similarity_preserving(teacher, student):
    """Tung and Mori 2019, arXiv 1907.09682, equations 2 to 4."""
    teacher, student = (normalize(x @ x.T) for x in (teacher, student))
    return ((teacher - student) ** 2).sum() / len(teacher) ** 2


def centered_kernel_alignment(teacher, student):
    """Kornblith et al. 2019, arXiv 1905.00414, the feature form of linear CKA."""
    x, y = teacher - teacher.mean(axis=0), student - student.mean(axis=0)
    norms = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return np.linalg.norm(y.T @ x) ** 2 / norms


def contrastive_distillation(teacher, student, temperature=0.2, labels=None):
    """InfoNCE, arXiv 1807.03748, equation 4, without other samples of one class."""
    u, v = normalize(student), normalize(teacher)
    total = 0.0
    for i in range(len(u)):
        scores = np.exp(v @ u[i] / temperature)
        counted = [
            j
            for j in range(len(u))
            if j == i or labels is None or labels[j] != labels[i]
        ]
        total -= np.log(scores[i] / scores[counted].sum())
    return total / len(u)


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
