"""Values of the losses of outputs, and of compiled losses, in float64 NumPy.

Masks and weights are applied by hand: each loss is a mean over the positions that count
of weight times value.
"""

import keras
import numpy as np
import reference
from fuzz.verdict import Refused

#: Loss -> the probabilities that it compares.
PROBABILITIES = {
    "soft": "softmax",
    "hard": "softmax",
    "decoupled": "softmax",
    "binary": "sigmoid",
}

READS_LABELS = ("decoupled", "bounded")
#: Keras's losses clip probabilities in float32.
CLIPPED = float(np.float32(1e-7)), float(np.float32(1 - 1e-7))


class Undecided(Exception):
    """Rounding decides the value."""


def refuse_unless(condition):
    if not condition:
        raise Refused


def term_value(term, teacher, student, labels, mask, weight):
    """The value of one loss of one output.

    Args:
        term: A `Term`.
        teacher: `Output` of the teacher.
        student: `Output` of the student.
        labels: Labels of this output.
        mask: `True` for samples that count, or `None`.
        weight: Weights along the first axes, or `None`.

    Raises:
        Refused: If the loss does not accept these outputs.
    """
    t, s = teacher.values, student.values
    name = term.name
    if name in ("binary", "regression", "bounded"):
        t, s = _columns(t, s)
        if name == "bounded":
            labels, s = _columns(np.asarray(labels, "float64"), s)
    refuse_unless(t.shape == s.shape and s.ndim > 1)
    positions = s.shape[:-1]
    keep = np.ones(positions, bool)
    for each in (teacher.mask, student.mask, mask):
        if each is not None:
            keep &= each.reshape(each.shape + (1,) * (keep.ndim - each.ndim))
    if name == "cwd":
        return _channel_wise(t, s, keep, weight, term.temperature)
    if PROBABILITIES.get(name) == "softmax":
        refuse_unless(s.shape[-1] > 1)
    if name == "decoupled":
        labels = class_of(labels, positions)
        if term.ignored is not None:
            keep &= labels != term.ignored
    t, s = (
        _as_logits(x, given, name)
        for x, given in zip((t, s), term.from_logits, strict=True)
    )
    counted = list(zip(*np.nonzero(keep), strict=True))
    if term.temperature == "auto":
        taught = [t[i] for i in counted if weight is None or weight_at(weight, i) > 0]
        temperature = reference.auto_temperature(taught) if taught else 4.0
        term = term._replace(temperature=temperature)
    values, weights = [], []
    for i in counted:
        label = None if labels is None or name not in READS_LABELS else labels[i]
        values.append(_of_position(term, t[i], s[i], label))
        weights.append(1.0 if weight is None else weight_at(weight, i))
    return float(np.mean(np.multiply(values, weights))) if values else 0.0


def weight_at(weight, index):
    """The weight of a position, from weights along the first axes."""
    index = index[: weight.ndim]
    return weight[
        tuple(
            0 if size == 1 and axis else i
            for axis, (size, i) in enumerate(zip(weight.shape, index, strict=False))
        )
    ]


def _of_position(term, t, s, label):
    t, s = t[None], s[None]
    if term.name == "soft":
        return reference.soft_targets(t, s, term.temperature)
    if term.name == "binary":
        return reference.binary_soft_targets(t, s, term.temperature)
    if term.name == "regression":
        return reference.regression_targets(t, s)
    if term.name == "hard":
        first, second = np.sort(t[0])[[-1, -2]]
        if first == second:
            raise Undecided
        return reference.hard_targets(t, s)
    if term.name == "decoupled":
        return reference.decoupled_distillation(t, s, [label], term.temperature)
    errors = [((x - label) ** 2).mean() for x in (t, s)]
    if np.isclose(errors[1] + term.margin, errors[0], rtol=1e-4):
        raise Undecided
    return reference.bounded_regression(t, s, label[None], term.margin)


def _channel_wise(t, s, keep, weight, temperature):
    refuse_unless(s.ndim > 2 and np.prod(s.shape[1:-1]) > 1)
    values = []
    for i in np.flatnonzero(keep.any(axis=tuple(range(1, keep.ndim)))):
        pair = (x[i][keep[i]][None] for x in (t, s))
        value = reference.channel_wise_distillation(*pair, temperature)
        values.append(value * (1.0 if weight is None else weight[i].mean()))
    return float(np.mean(values)) if values else 0.0


def _columns(*arrays):
    """The arrays with a last axis if another one has it."""
    rank = max(2, *(x.ndim for x in arrays))
    arrays = [x[..., None] if x.ndim == rank - 1 else x for x in arrays]
    refuse_unless(len({x.shape for x in arrays}) == 1)
    return arrays


def _as_logits(x, from_logits, name):
    kind = PROBABILITIES.get(name)
    if from_logits or kind is None:
        return x
    if kind == "softmax":
        return np.log(np.maximum(x, 1e-30))
    x = np.clip(x, 2.0**-23, 1 - 2.0**-23)
    return np.log(x) - np.log1p(-x)


def class_of(labels, positions):
    """Class indices from labels of any form."""
    labels = np.asarray(labels)
    if labels.ndim == len(positions):
        return labels.astype(int)
    refuse_unless(labels.ndim == len(positions) + 1)
    if labels.shape[-1] == 1:
        return labels[..., 0].astype(int)
    return labels.argmax(-1)


# The student's own loss


def own_value(task, output, labels, weight, ignored, from_logits, labeled=None):
    """The value of the compiled loss of one output, as Keras defines it.

    Args:
        task: `"multiclass"`, `"binary"`, `"regression"` or `"custom"`.
        output: `Output` of the student.
        labels: Its labels.
        weight: Weights of the samples or positions, or `None`.
        ignored: Class to leave out, or `None`.
        from_logits: Whether the output is logits.
        labeled: `True` for samples with labels, or `None`.

    Returns:
        The value, or NaN if it is unknown: on TensorFlow, Keras reads the logits behind
        probabilities in some cases, and then does not clip the probabilities.
    """
    s, y = output.values, np.asarray(labels, "float64")
    is_extreme = np.any((s < 1e-6) | (s > 1 - 1e-6))
    if is_extreme and not from_logits and task in ("multiclass", "binary"):
        if keras.backend.backend() == "tensorflow":
            return np.nan
    keep = output.mask
    if task == "multiclass":
        indices = class_of(labels, s.shape[:-1])
        if ignored is not None:
            is_kept = indices != ignored
            keep = is_kept if keep is None else keep & is_kept
        if from_logits:
            logs = reference.log_softmax(s)
        else:
            logs = np.log(np.clip(s / s.sum(-1, keepdims=True), *CLIPPED))
        one_hot = np.arange(s.shape[-1]) == indices[..., None]
        values = -(logs * one_hot).sum(-1)
    else:
        if y.ndim != s.ndim:
            y, s = _columns(y, s)
        if task == "binary" and from_logits:
            values = np.logaddexp(0, s) - y * s
        elif task == "binary":
            s = np.clip(s, *CLIPPED)
            values = -(y * np.log(s) + (1 - y) * np.log(1 - s))
        else:
            values = (s - y) ** 2 if task == "regression" else np.abs(s - y)
        # Without a last axis, Keras averages over the rows, and we over labeled rows.
        if values.ndim > 1 or labeled is None:
            values = values.mean(-1)
    if weight is None:
        weight = np.ones(())
    weight = weight.reshape(weight.shape + (1,) * (values.ndim - weight.ndim))
    if weight.ndim > values.ndim and weight.shape[-1] == 1 and values.ndim:
        weight = weight[..., 0]
    if labeled is not None:
        rows = labeled.reshape(labeled.shape + (1,) * (values.ndim - 1))
        keep = np.broadcast_to(rows, values.shape) & (True if keep is None else keep)
    if keep is None:
        return float((values * weight).mean())
    values, weight = (
        np.broadcast_to(values, keep.shape),
        np.broadcast_to(weight, keep.shape),
    )
    return float((values * weight)[keep].sum() / max(keep.sum(), 1))
