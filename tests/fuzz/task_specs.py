"""Random heads, losses, labels and weights of a distiller, drawn from a seed."""

from typing import NamedTuple

import keras
import numpy as np
from fuzz import heads
from fuzz.heads import Head
from fuzz.task_nets import FORMS, POLICIES
from fuzz.task_values import READS_LABELS

from keras_dskd import losses

KINDS = {
    "multiclass": ("linear", "softmax"),
    "binary": ("linear", "sigmoid"),
    "regression": ("linear", "linear", "relu"),
}
UNITS = {"multiclass": (2, 3, 4), "binary": (0, 1, 1, 3), "regression": (0, 1, 1, 3)}
FITTING = {
    "multiclass": ("soft", "soft", "soft", "hard", "decoupled", "cwd", "regression"),
    "binary": ("binary", "binary", "binary", "regression"),
    "regression": ("regression", "bounded"),
}
EVERY = ("soft", "hard", "decoupled", "binary", "regression", "bounded", "cwd")
BEHIND = (None, None, None, "average", "reshape", "identity", "dropout", "linear")
IS_TORCH = keras.backend.backend() == "torch"
IGNORED = {"sparse": 255, "column": -1}


class Term(NamedTuple):
    """A loss of outputs.

    Attributes:
        name: One of `EVERY`.
        taps: The teacher's and the student's tap, or `None` for all outputs.
        from_logits: For the teacher and the student.
        temperature: The temperature, or `"auto"` for `"soft"`.
        margin: The margin of `"bounded"`.
        ignored: The class that `"decoupled"` ignores, or `None`.
        label_name: The name of the output whose labels are read, or `None`.
    """

    name: str
    taps: tuple[str, str] | None
    from_logits: tuple[bool, bool]
    temperature: float | str
    margin: float
    ignored: int | None
    label_name: str | None

    def make(self):
        layers = self.taps or (None, None)
        logits, t = self.from_logits, self.temperature
        if self.name == "soft":
            return losses.SoftTargets(t, *layers, *logits)
        if self.name == "binary":
            return losses.BinarySoftTargets(t, *layers, *logits)
        if self.name == "hard":
            return losses.HardTargets(*layers, logits[1])
        if self.name == "regression":
            return losses.RegressionTargets(*layers)
        if self.name == "bounded":
            return losses.RegressionTargets(*layers, True, self.margin, self.label_name)
        if self.name == "cwd":
            return losses.ChannelWiseDistillation(t, *layers)
        return losses.DecoupledDistillation(
            t,
            1.0,
            8.0,
            *layers,
            *logits,
            ignore_class=self.ignored,
            label_name=self.label_name,
        )


class Spec(NamedTuple):
    """Everything that is drawn. See `draw`."""

    seed: int
    n: int
    bodies: tuple[str, str]
    forms: tuple[str, str]
    policies: tuple[str, str]
    teacher_heads: tuple[Head, ...]
    student_heads: tuple[Head, ...]
    outputs: str
    tasks: tuple[str, ...]
    labels: str
    terms: tuple[Term, ...]
    weighted: bool
    taught: str | None
    labeled: str | None
    student_weight: float
    x_dtype: str
    way: str


def draw(seed, several=False):
    """A `Spec` from a seed: with one head, or with several."""
    rng = np.random.default_rng(seed)

    def pick(values):
        return values[rng.integers(len(values))]

    def chance(share):
        return rng.random() < share

    rank = pick(("rows", "rows", "steps", "maps"))
    bodies = pick(heads.BODIES[rank]), pick(heads.BODIES[rank])
    forms = pick(FORMS), pick(FORMS)

    def head(role, task, units, is_pooled):
        every = ("linear", "relu", "softmax", "sigmoid")
        kind = pick(every) if chance(0.05) else pick(KINDS[task])
        if chance(0.04):
            units = pick((0, 1, 2, 3))
        elif units < 2 and chance(0.2):
            units = 1 - units
        how, behind = pick(("argument", "layer", "op")), pick(BEHIND)
        if several and how == "op" and behind is None:
            behind = "identity"  # A named tap needs a layer.
        if bodies[role] in heads.STEPWISE and not is_pooled:
            # These layers and operations lose masks.
            units = max(units, 1)
            how = "layer" if how == "op" else how
            behind = "identity" if behind == "reshape" else behind
        if kind == "softmax":
            units = max(units, 2)
            # On torch, Keras cannot train the softmax of a map.
            if role and rank == "maps" and not is_pooled and IS_TORCH:
                kind = "linear"
        return Head(kind, units, how, behind, is_pooled)

    tasks = [pick(tuple(KINDS)) for _ in range(2 if several else 1)]
    pairs = []
    for task in tasks:
        units = pick(UNITS[task])
        is_pooled = rank != "rows" and chance(0.3 if several else 0.15)
        pairs.append([head(role, task, units, is_pooled) for role in (0, 1)])
    of_teacher, of_student = (tuple(of_role) for of_role in zip(*pairs, strict=True))
    labels = pick(("sparse", "one-hot", "column"))
    ignored = IGNORED.get(labels) if chance(0.4) else None
    compiled = tuple(
        _compiled(pick(("regression", "custom", "binary")) if chance(0.12) else task, h)
        for task, h in zip(tasks, of_student, strict=True)
    )

    def term():
        index = pick(range(len(tasks)))
        name = pick(EVERY) if chance(0.08) else pick(FITTING[tasks[index]])
        letter = "ab"[index]
        both = of_teacher[index], of_student[index]
        taps = None
        is_named = chance(0.7) if several else chance(0.3)
        if is_named and (several or all(map(_ends_in_layer, both))):
            taps = tuple(
                f"logits_{letter}"
                if _has_logits(h) and chance(0.3)
                else f"out_{letter}"
                for h in both
            )
        kinds = [
            "linear" if taps and tap.startswith("logits") else h.kind
            for h, tap in zip(both, taps or ("out", "out"), strict=True)
        ]
        right = [kind in ("linear", "relu") for kind in kinds]
        given = tuple(bool(r) != chance(0.04) for r in right)
        label_name = None
        if several and taps and name in READS_LABELS and chance(0.6):
            label_name = letter
        return Term(
            name,
            taps,
            given,
            pick((0.5, 1.0, 4.0)),
            pick((0.0, 0.3)),
            ignored if compiled[index] == "multiclass" else None,
            label_name,
        )

    terms = {t.make().name: t for t in (term() for _ in range(pick((1, 1, 2))))}
    outputs = pick(("list", "dict")) if several else "one"
    way = "fit" if "subclassed" in forms else pick(("batch",) * 6 + ("fit",))
    is_weighted = (
        chance(0.4) and len({(h.is_pooled, bool(h.units)) for h in of_student}) == 1
    )
    # `fit` makes one array of weights for each output. They do not reach the losses. On
    # torch, Keras multiplies one array by the masks of all outputs.
    has_masks = bodies[1] in heads.STEPWISE or ignored is not None
    if several and (way == "fit" or has_masks):
        is_weighted = False
    if way == "batch" and chance(0.02):
        way = "compiled"
    return Spec(
        seed,
        pick((1, 2, 4, 5)),
        bodies,
        forms,
        (pick(POLICIES), pick(POLICIES)),
        of_teacher,
        of_student,
        outputs,
        compiled,
        labels,
        tuple(terms.values()),
        is_weighted,
        pick(("some", "some", "none", "all")) if chance(0.3) else None,
        pick(("some", "some", "none", "all")) if chance(0.3) else None,
        pick((0.5, 0.5, 0.25, 0.0)),
        pick(("float32", "float32", "float64", "float16")),
        way,
    )


def _ends_in_layer(head):
    is_op = head.how == "op" and head.kind != "linear"
    return not is_op or head.behind is not None or not head.units


def _has_logits(head):
    """Whether `logits_NAME` is a layer before the last, and linear."""
    if head.kind == "linear":
        return head.behind is not None or not head.units
    return head.how != "argument"


def _compiled(task, head):
    if task == "multiclass" and (head.units < 2 or head.kind == "sigmoid"):
        return "binary"
    return task
