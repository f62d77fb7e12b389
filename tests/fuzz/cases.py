"""Random distillers, their data, and the values they must report, in NumPy."""

import keras
import numpy as np
import reference
from fuzz import nets
from fuzz.verdict import Refused
from hypothesis import strategies as st

import keras_dskd
from keras_dskd.distiller.loss_term import make_terms

KINDS = st.sampled_from(nets.KINDS)
OUTPUTS = st.sampled_from(["one", "one", "one", *nets.OUTPUTS])
LAYERS = st.sampled_from(["hidden", "hidden", "logits", None])
NAMED = st.tuples(st.sampled_from(sorted(nets.MAKERS)), LAYERS, LAYERS)
STUDENT_WEIGHTS = st.sampled_from([0, 0.0, 0.25, 0.5, 1, 1.0])


def halving(step):
    """A weight that depends on the step."""
    return 1.0 / (1.0 + keras.ops.cast(step, "float32"))


WEIGHTS = st.sampled_from([0, 1, 0.5, 2.0, np.float32(0.1), halving])

CASES = {
    "kinds": st.tuples(KINDS, KINDS),
    "hidden": st.tuples(*[st.sampled_from([1, 3, 3, 3])] * 2),
    "classes": st.sampled_from([(3, 3), (3, 3), (3, 3), (2, 3), (1, 1)]),
    "outputs": st.tuples(OUTPUTS, OUTPUTS),
    "named": st.lists(NAMED, min_size=1, max_size=3),
    "weights": st.none() | st.lists(WEIGHTS, min_size=3, max_size=3),
    "student_weight": STUDENT_WEIGHTS,
    "projected": st.booleans(),
    "weighted": st.booleans(),
    "labels": st.sampled_from(["flat", "column", "one-hot"]),
    "masked": st.sampled_from([None, None, None, "some", "none", "all"]),
}


class Case:
    """A distiller, its data, and the values it must report."""

    def __init__(
        self,
        kinds,
        hidden,
        classes,
        outputs,
        named,
        weights,
        student_weight,
        projected,
        weighted,
        labels,
        masked,
        n,
        seed,
        eager=True,
    ):
        # A sequential model has one output.
        outputs = [
            "one" if kind == "sequential" else output
            for kind, output in zip(kinds, outputs, strict=True)
        ]
        roles = zip(
            ("teacher", "student"), kinds, (5, 4), hidden, classes, outputs, strict=True
        )
        self.teacher, self.student = (nets.net(*role) for role in roles)
        self.teacher.reset()
        self.student.reset()
        # Keras's loss of final outputs takes no layer names.
        self.named = [
            (k, t, s) if k != "logits" else (k, None, None) for k, t, s in named
        ]
        self.weights = None if weights is None else weights[: len(named)]
        self.student_weight = student_weight
        self.labels = labels
        self.eager = eager
        self.projectors = {}
        if projected and any(s == "hidden" for _, _, s in self.named):
            projector = nets.dense(hidden[0], "projector", 7)
            projector.build((None, hidden[1]))
            self.projectors["hidden"] = projector
        self.n = n
        self.x = {
            "teacher": self.teacher.data(n, seed),
            "student": self.student.data(n, seed + 1),
        }
        rng = np.random.default_rng(seed)
        self.mask = None
        if masked is not None:
            self.mask = {"none": np.zeros(n, bool), "all": np.ones(n, bool)}.get(
                masked, rng.random(n) < 0.6
            )
            self.x["teacher_mask"] = self.mask
            # Values of a missing teacher must not be read.
            for array in keras.tree.flatten(self.x["teacher"]):
                array[~self.mask] = np.nan
        self.y = self._labels(rng, n)
        self.sample_weight = (
            rng.uniform(0, 2, n).astype("float32")
            if weighted and self.student.outputs == "one"
            else None
        )

    def _labels(self, rng, n):
        def one(classes):
            if classes == 1:
                y = rng.normal(size=n).astype("float32")
                return y[:, None] if self.labels != "flat" else y
            y = rng.integers(0, classes, n)
            if self.labels == "one-hot":
                return np.eye(classes, dtype="float32")[y]
            return y[:, None] if self.labels == "column" else y

        heads = [self.student.classes, 2]
        return nets.structure_of(
            self.student.outputs,
            [one(c) for c in (heads if self.student.outputs != "one" else heads[:1])],
        )

    def losses(self):
        """The student's losses, for `compile`."""

        def one(classes):
            if classes == 1:
                return keras.losses.MeanSquaredError()
            kind = "Categorical" if self.labels == "one-hot" else "SparseCategorical"
            return getattr(keras.losses, f"{kind}Crossentropy")(from_logits=True)

        classes = [self.student.classes, 2]
        outputs = self.student.outputs
        return nets.structure_of(
            outputs, [one(c) for c in (classes if outputs != "one" else classes[:1])]
        )

    def make(self):
        """The distiller, compiled with a learning rate of 0."""
        made = keras_dskd.Distiller(
            self.teacher.model,
            self.student.model,
            self.terms(),
            distillation_loss_weights=self.weights,
            student_loss_weight=self.student_weight,
            projectors=self.projectors,
        )
        made.compile(keras.optimizers.SGD(0.0), self.losses(), run_eagerly=self.eager)
        return made

    def terms(self):
        return [nets.MAKERS[kind](t, s) for kind, t, s in self.named]

    def expected(self, rows=slice(None), step=0):
        """All values that a step on these samples reports.

        `None` if a loss does not accept its features.
        """
        x = keras.tree.map_structure(lambda array: array[rows], self.x)
        own = self.student_loss(rows)
        if self.student_weight == 1:
            return {"loss": own, "student_loss": own}
        teacher = self.teacher.features(x["teacher"])
        student = self.student.features(x["student"])
        for name, projector in self.projectors.items():
            student[name] = nets.affine(projector, student[name])
        weight, mask = self._of_samples(rows)
        try:
            values = [
                nets.term(k, teacher[t], student[s], weight, mask)
                for k, t, s in self.named
            ]
        except Refused:
            return None
        weights = self.weights or [1.0] * len(values)
        weights = [1 / (1 + step) if callable(w) else float(w) for w in weights]
        distilled = float(np.dot(weights, values))
        share = float(self.student_weight)
        numbers = {
            "student_loss": own,
            "distillation_loss": distilled,
            "loss": share * own + (1 - share) * distilled,
        }
        terms = make_terms(self.terms(), keras.Sequential())
        names = [term.name for term in terms]
        return {**numbers, **dict(zip(names, values, strict=True))}

    def _of_samples(self, rows):
        return [
            None if array is None else array[rows]
            for array in (self.sample_weight, self.mask)
        ]

    def student_loss(self, rows=slice(None), weighted=True):
        """The mean of the student's losses over samples."""
        x = keras.tree.map_structure(lambda array: array[rows], self.x["student"])
        outputs = keras.tree.flatten(self.student.features(x)[None])
        targets = keras.tree.flatten(self.y)
        total = 0.0
        for output, target in zip(outputs, targets, strict=True):
            losses = per_sample(output, target[rows])
            if weighted and self.sample_weight is not None:
                losses = losses * self.sample_weight[rows]
            total += losses.mean()
        return float(total)


def per_sample(output, y):
    """The student's loss of each sample."""
    if output.shape[1] == 1:
        return (output[:, 0] - y.reshape(-1)) ** 2
    if y.ndim < 2 or y.shape[1] != output.shape[1]:
        y = np.eye(output.shape[1])[np.asarray(y).reshape(-1).astype(int)]
    return -(reference.log_softmax(output) * y).sum(axis=1)
