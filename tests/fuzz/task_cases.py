"""Distillers of any task: their data, and what they must report."""

import keras
import numpy as np
from fuzz import task_nets
from fuzz.task_values import PROBABILITIES, READS_LABELS, own_value, term_value
from fuzz.verdict import Refused

import keras_dskd

IS_TENSORFLOW = keras.backend.backend() == "tensorflow"


class Case:
    """A distiller made from a `Spec`, its data, and the values it must report."""

    def __init__(self, spec):
        self.spec = spec
        drawn = (spec.teacher_heads, spec.student_heads)
        self.nets = [
            task_nets.Net(role, form, body, given, spec.outputs, policy, spec.seed + i)
            for i, (role, form, body, given, policy) in enumerate(
                zip(
                    ("teacher", "student"),
                    spec.forms,
                    spec.bodies,
                    drawn,
                    spec.policies,
                    strict=True,
                )
            )
        ]
        rng = np.random.default_rng(spec.seed)
        x, masks = zip(
            *(net.body.data(spec.n, rng, spec.x_dtype) for net in self.nets),
            strict=True,
        )
        self.x = dict(zip(("teacher", "student"), x, strict=True))
        self.taught, self.labeled = (
            _row_mask(drawn, spec.n, rng) for drawn in (spec.taught, spec.labeled)
        )
        if self.labeled is not None:
            self.x["label_mask"] = self.labeled
        if self.taught is not None:
            self.x["teacher_mask"] = self.taught
            if np.issubdtype(x[0].dtype, np.floating):
                x[0][~self.taught] = np.nan
        self.taps = [
            net.taps(given, mask)
            for net, given, mask in zip(self.nets, x, masks, strict=True)
        ]
        self.names = "ab"[: len(spec.tasks)]
        self.y = {name: self._labels(i, rng) for i, name in enumerate(self.names)}
        self.weight = self._weights(rng) if spec.weighted else None

    def output(self, role, name):
        return self.taps[role][f"out_{name}"]

    def _labels(self, index, rng):
        task, form = self.spec.tasks[index], self.spec.labels
        shape = self.output(1, self.names[index]).values.shape
        if task == "multiclass":
            y = rng.integers(0, shape[-1], shape[:-1])
            ignored = self.ignored(index)
            if ignored is not None:
                y = np.where(rng.random(y.shape) < 0.3, ignored, y)
            if form == "one-hot":
                return np.eye(shape[-1], dtype="float32")[y]
            y = y[..., None] if form == "column" else y
            return y.astype(["int32", "float32"][rng.integers(2)])
        y = rng.normal(size=shape)
        if task == "binary":
            y = y > 0
        y = y.astype(
            ["float32", "int32" if task == "binary" else "float32"][rng.integers(2)]
        )
        return y[:, 0] if shape[1:] == (1,) and form == "sparse" else y

    def ignored(self, index):
        """The class that the compiled loss ignores, or `None`."""
        if self.spec.tasks[index] != "multiclass":
            return None
        found = [t.ignored for t in self.spec.terms if t.ignored is not None]
        return found[0] if found else None

    def _weights(self, rng):
        """Weights along the first axes, as Keras accepts them."""
        ranks = [self.output(1, name).values.ndim for name in self.names]
        if max(ranks) < 3:
            shape = (self.spec.n,)
        else:
            grid = self.output(1, "a").values.shape[1 : max(ranks) - 1]
            # Keras does not multiply a mask by weights of another shape.
            is_masked = self.output(1, "a").mask is not None
            is_masked = is_masked or self.ignored(0) is not None
            is_full = is_masked or rng.random() < 0.5
            shape = (self.spec.n, *(grid if is_full else (1,) * len(grid)))
        return rng.uniform(0.1, 2, shape).astype("float32")

    def compiled(self, index):
        """The student's loss of one output, for `compile`."""
        task = self.spec.tasks[index]
        kind = self.spec.student_heads[index].kind
        from_logits = kind not in ("softmax", "sigmoid")
        if task == "binary":
            return keras.losses.BinaryCrossentropy(from_logits=from_logits)
        if task == "regression":
            return ["mse", keras.losses.MeanSquaredError()][self.spec.seed % 2]
        if task == "custom":
            return absolute
        if self.spec.labels == "one-hot":
            return keras.losses.CategoricalCrossentropy(from_logits=from_logits)
        return keras.losses.SparseCategoricalCrossentropy(
            from_logits=from_logits, ignore_class=self.ignored(index)
        )

    def run(self):
        """The logs of one step."""
        made = keras_dskd.Distiller(
            *(net.model for net in self.nets),
            [term.make() for term in self.spec.terms],
            student_loss_weight=self.spec.student_weight,
        )
        loss = [self.compiled(index) for index in range(len(self.names))]
        made.compile(
            keras.optimizers.SGD(0.0),
            task_nets.structure_of(self.spec.outputs, loss),
            run_eagerly=self.spec.way != "compiled",
        )
        y = [_without_labels(y, self.labeled) for y in self.y.values()]
        y = task_nets.structure_of(self.spec.outputs, y)
        if self.spec.way != "fit":
            return made.train_on_batch(self.x, y, self.weight, return_dict=True)
        history = made.fit(
            self.x, y, self.spec.n, 1, 0, sample_weight=self.weight, shuffle=False
        ).history
        return {name: values[0] for name, values in history.items()}

    def expected(self):
        """The values of a step.

        Raises:
            Refused: If an error is due.
        """
        own = sum(self.own(index) for index in range(len(self.names)))
        values = {term.make().name: self.term(term) for term in self.spec.terms}
        distilled, share = sum(values.values()), self.spec.student_weight
        return {
            "student_loss": own,
            "distillation_loss": distilled,
            "loss": share * own + (1 - share) * distilled,
            **values,
        }

    def own(self, index):
        name, task = self.names[index], self.spec.tasks[index]
        kind = self.spec.student_heads[index].kind
        if IS_TENSORFLOW and (task, kind) == ("binary", "softmax"):
            return np.nan  # Keras takes the softmax's logits for those of a sigmoid.
        return own_value(
            task,
            self.output(1, name),
            self.y[name],
            self.weight,
            self.ignored(index),
            kind not in ("softmax", "sigmoid"),
            self.labeled,
        )

    def pairs(self, term):
        """Each pair of taps that a loss reads, with the name of the head."""
        if term.taps:
            return [(term.taps[1][-1], *term.taps)]
        return [(name, f"out_{name}", f"out_{name}") for name in self.names]

    def term(self, term):
        pairs = self.pairs(term)
        if len(pairs) > 1 and term.name in ("decoupled", "cwd"):
            raise Refused
        for role, from_logits in enumerate(term.from_logits):
            if term.name == "hard" and not role:
                from_logits = None
            for pair in pairs:
                self._check_kind(term, role, pair[1 + role], from_logits)
        self._check_task(term, pairs)
        weight = self.weight
        if weight is not None and weight.ndim == 2 and weight.shape[1] == 1:
            weight = weight[:, 0]
        counts = self.taught
        if term.name in READS_LABELS and self.labeled is not None:
            counts = self.labeled if counts is None else counts & self.labeled
        return sum(
            term_value(
                term,
                self.taps[0][of_teacher],
                self.taps[1][of_student],
                self.y[term.label_name or name],
                counts,
                weight,
            )
            for name, of_teacher, of_student in pairs
        )

    def _check_kind(self, term, role, tap, from_logits):
        """Raises `Refused` if the loss does not compare what the tap returns."""
        own = PROBABILITIES.get(term.name)
        if own is None:
            return
        kind = self.kind(role, tap, term.taps is not None)
        if kind is None and self.spec.way == "fit":
            kind = self._kind_of_values(role, tap, own, from_logits)
        if kind == "linear" and from_logits is False:
            raise Refused
        if kind in ("softmax", "sigmoid") and (kind != own or from_logits):
            raise Refused

    def kind(self, role, tap, is_named):
        """The kind of an output, or `None` if the graph does not tell."""
        kind = self.taps[role][tap].kind
        if self.spec.forms[role] != "subclassed" or not is_named:
            return kind
        # The layer alone tells.
        head = (self.spec.teacher_heads, self.spec.student_heads)[role][
            "ab".index(tap[-1])
        ]
        if tap.startswith("logits"):
            return "linear"
        is_last = head.units and head.behind is None
        return head.kind if is_last and head.kind != "relu" else None

    def _kind_of_values(self, role, tap, own, from_logits):
        values = self.taps[role][tap].values
        if not role and self.taught is not None:
            values = values[self.taught]
        if not values.size:
            return None
        is_within = values.min() >= -1e-3 and values.max() <= 1.001
        if values.ndim > 1 and values.shape[-1] > 1 and is_within:
            if np.allclose(values.sum(-1), 1, atol=2e-2):
                return "softmax"
        if own == "softmax":
            return "linear"
        return None if is_within else "linear"

    def _check_task(self, term, pairs):
        """Raises `Refused` if the student's output is trained for another task."""
        own = PROBABILITIES.get(term.name)
        if own is None or (len(self.names) > 1 and not term.taps):
            return
        name, _, tap = pairs[0]
        if term.taps and (self.spec.forms[1] in UNSEEN or tap.startswith("logits")):
            return
        task = self.spec.tasks[self.names.index(name)]
        kind = self.kind(1, tap, term.taps is not None)
        wanted = "multiclass" if own == "softmax" else "binary"
        if task not in (wanted, "custom") and kind not in ("softmax", "sigmoid"):
            raise Refused

    def is_undecided(self):
        """Whether the case may raise an error or give the value, as far as we say."""
        # Labels are found by layer names, which these models do not show.
        return len(self.names) > 1 and any(
            term.name in READS_LABELS
            and (
                self.spec.forms[1] in UNSEEN
                or (self.spec.outputs == "list" and term.label_name)
                or (term.taps and term.taps[1].startswith("logits"))
            )
            for term in self.spec.terms
        )


#: Forms of models in which the outputs' layers are not those of the heads.
UNSEEN = ("subclassed", "nested")


def _row_mask(drawn, n, rng):
    """Bool array `(n,)`, or `None`."""
    if drawn is None:
        return None
    return {"none": np.zeros(n, bool), "all": np.ones(n, bool)}.get(
        drawn, rng.random(n) < 0.6
    )


def _without_labels(y, labeled):
    """Labels with -1 or NaN in the rows that have none."""
    if labeled is None:
        return y
    y = y.copy()
    y[~labeled] = np.nan if y.dtype == "float32" else -1
    return y


def absolute(y_true, y_pred):
    """A loss that may be for any task."""
    return keras.ops.mean(keras.ops.abs(y_true - y_pred), axis=-1)
