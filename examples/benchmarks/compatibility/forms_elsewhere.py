"""Distillation losses as other libraries write them, for comparisons with ours.

Each function follows the formula in the library's code. It accepts NumPy arrays, or
torch tensors of any dtype, with which it computes as the library does. Nothing here
imports keras_dskd. We read the code at these commits:

    RepDistiller   HobbitLong/RepDistiller@b84f547
    mdistiller     megvii-research/mdistiller@a08d46f
    torchdistill   yoshitomo-matsubara/torchdistill@3e4373c
    Barlow Twins   facebookresearch/barlowtwins@8e8d284
    VICReg         facebookresearch/vicreg@4e12602
    MMRazor        open-mmlab/mmrazor@90c7af1
    DeiT           facebookresearch/deit@7e160fe
    uniformity     SsnL/align_uniform, as printed in the paper

`teacher` and `student` are rows `(n, c)`, logits `(n, classes)`, or feature maps
`(n, height, width, channels)`.
"""

import numpy as np


def soft_targets(teacher, student, temperature=4.0):
    """RepDistiller `DistillKL`, mdistiller `KD`."""
    log_p, log_q = (_log_softmax(x / temperature) for x in (teacher, student))
    divergence = (_namespace(log_p).exp(log_p) * (log_p - log_q)).sum()
    return divergence * temperature**2 / len(teacher)


def soft_targets_of_deit(teacher, student, temperature=4.0):
    """DeiT's soft distillation: divided by the number of logits."""
    return soft_targets(teacher, student, temperature) / teacher.shape[1]


def hard_targets_of_deit(teacher, student):
    """DeiT's hard distillation."""
    chosen = teacher.argmax(1)
    return -_log_softmax(student)[range(len(student)), chosen].mean()


def decoupled(teacher, student, labels, temperature=4.0, alpha=1.0, beta=8.0):
    """Mdistiller `DKD`: other classes by a softmax without the true class."""
    xp, rows = _namespace(teacher), range(len(teacher))
    is_true = xp.zeros_like(teacher)
    is_true[rows, labels] = 1
    true, others = [], []
    for logits in (teacher, student):
        p = xp.exp(_log_softmax(logits / temperature))[rows, labels]
        true.append(xp.stack([p, 1 - p], -1))
        others.append(_log_softmax(logits / temperature - 1000 * is_true))
    target = (true[0] * (xp.log(true[0]) - xp.log(true[1]))).sum()
    rest = (xp.exp(others[0]) * (others[0] - others[1])).sum()
    return (alpha * target + beta * rest) * temperature**2 / len(teacher)


def channel_wise(teacher, student, temperature=4.0):
    """MMRazor `ChannelWiseDivergence`."""
    count = teacher.shape[0] * teacher.shape[-1]
    xp = _namespace(teacher)
    maps = [xp.moveaxis(x, -1, 1).reshape(count, -1) for x in (teacher, student)]
    return soft_targets(*maps, temperature)


def similarity(teacher, student):
    """RepDistiller `Similarity`, mdistiller `SP`: rows of unit Euclidean length."""
    difference = _normalize(teacher @ teacher.T) - _normalize(student @ student.T)
    return (difference**2).sum() / len(teacher) ** 2


def similarity_of_torchdistill(teacher, student):
    """Torchdistill `SPKDLoss`: rows whose absolute values sum to 1."""
    difference = _normalize(teacher @ teacher.T, 1) - _normalize(student @ student.T, 1)
    return (difference**2).sum() / len(teacher) ** 2


def relational_distance(teacher, student):
    """`RKDLoss` of RepDistiller and torchdistill, mdistiller `RKD`: the distances."""

    def relative(rows):
        squares = (rows**2).sum(1)
        distances = squares[:, None] + squares[None, :] - 2 * (rows @ rows.T)
        distances = distances.clip(1e-12) ** 0.5 * _off_diagonal(rows)
        return distances / distances[distances > 0].mean()

    return _smooth_l1(relative(teacher) - relative(student)).mean()


def relational_angle(teacher, student):
    """The same, the angles."""

    def cosines(rows):
        units = _normalize(rows[None, :, :] - rows[:, None, :])
        return units @ _namespace(units).moveaxis(units, 1, 2)

    return _smooth_l1(cosines(teacher) - cosines(student)).mean()


def attention(teacher, student):
    """RepDistiller `Attention`, mdistiller `AT`, torchdistill `ATLoss`, on one grid."""

    def attention_map(feature):
        return _normalize((feature**2).mean(-1).reshape(len(feature), -1))

    return ((attention_map(teacher) - attention_map(student)) ** 2).mean()


def attention_on_two_grids(teacher, student):
    """RepDistiller, mdistiller: the finer feature map is pooled, then squared."""
    side = min(teacher.shape[1], student.shape[1])
    return attention(_pooled(teacher, side), _pooled(student, side))


def barlow_twins(teacher, student, lambd=0.0051):
    """Barlow Twins, with the teacher as the first view."""
    correlation = _standardize(teacher).T @ _standardize(student) / len(teacher)
    on = ((correlation.diagonal() - 1) ** 2).sum()
    off = (correlation**2 * _off_diagonal(correlation)).sum()
    return on + lambd * off


def vicreg_covariance(rows):
    """VICReg's covariance term of one branch, on rows standardized per channel."""
    rows = _standardize(rows)
    rows = rows - rows.mean(0)
    covariance = rows.T @ rows / (len(rows) - 1)
    return (covariance**2 * _off_diagonal(covariance)).sum() / rows.shape[1]


def uniformity(rows, temperature=2.0):
    """`uniform_loss` of Wang and Isola, on rows of unit length."""
    xp, units = _namespace(rows), _normalize(rows)
    distances = ((units[:, None] - units[None, :]) ** 2).sum(-1)
    potentials = xp.exp(-temperature * distances) * _off_diagonal(rows @ rows.T)
    return xp.log(potentials.sum() / (len(rows) * (len(rows) - 1)))


def _namespace(array):
    """NumPy or torch: what an array is made of."""
    if isinstance(array, np.ndarray):
        return np
    import torch

    return torch


def _log_softmax(logits):
    if _namespace(logits) is not np:
        return logits.log_softmax(-1)
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def _normalize(rows, p=2):
    """Rows along the last axis with a `p`-norm of 1."""
    if _namespace(rows) is not np:
        return _namespace(rows).nn.functional.normalize(rows, p=p, dim=-1)
    norms = (np.abs(rows) ** p).sum(-1, keepdims=True) ** (1 / p)
    return rows / np.maximum(norms, 1e-12)


def _standardize(rows, epsilon=1e-5):
    """Batch normalization without a scale and an offset."""
    if _namespace(rows) is not np:
        batch_norm = _namespace(rows).nn.functional.batch_norm
        return batch_norm(rows, None, None, training=True, eps=epsilon)
    return (rows - rows.mean(0)) / np.sqrt(rows.var(0) + epsilon)


def _pooled(feature, side):
    size = feature.shape[1] // side
    shape = (len(feature), side, size, side, size, feature.shape[-1])
    return feature.reshape(shape).mean((2, 4))


def _off_diagonal(matrix):
    xp, n = _namespace(matrix), matrix.shape[0]
    return 1 - xp.eye(n, dtype=matrix.dtype)


def _smooth_l1(difference):
    size = abs(difference)
    return _namespace(size).where(size < 1, difference**2 / 2, size - 0.5)
