"""One run of `methods.py`: train a student with a method, and score it."""

import hashlib
import json
import os
import sys
import time
from functools import cached_property
from pathlib import Path

import data_sets
import keras
import numpy as np
from calibration import (
    expected_calibration_error,
    log_probabilities,
    negative_log_likelihood,
)

import keras_dskd

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import models
from training import train

#: Layers whose structure is measured.
LAYERS = ("block2", "features")

# Offsets of a seed, so that no two random choices share random numbers.
_TEACHER, _STUDENT, _UNTRAINED = 0, 1000, 3000


class SeedRuns:
    """The runs of one seed on a data set, which differ only in the method.

    They share the rows, the trained teacher, the student's initial weights and the
    order of batches.

    Args:
        data_set: A `data_sets.DataSet`.
        seed: The seed.
        settings: `Settings`.
        teachers: Folder for trained teachers, which are reused; only needed to run.
    """

    def __init__(self, data_set, seed, settings, teachers=None):
        self.data_set, self.seed = data_set, seed
        self.settings = settings.of(data_set)
        self.teachers = teachers

    def identity(self, name, method=None):
        """The identity of a run: everything that its results depend on."""
        return {
            "data": self.data_set.name,
            "checksum": self.data_set.checksum,
            "degrade": self.data_set.degrade,
            **self.settings,
            "backend": keras.backend.backend(),
            "keras": keras.__version__,
            "keras_dskd": keras_dskd.__version__,
            "method": name,
            "weight": method.weight if method else None,
            "seed": self.seed,
        }

    def run(self, name, method):
        """Trains a student and scores it: the record, with its identity."""
        data, teacher = self.data, self.teacher
        start = time.perf_counter()
        if not method.is_teacher_trained:
            teacher = self._network("teacher", _UNTRAINED)
        student = self._network("student", _STUDENT)
        steps = self.settings["epochs"] * (
            len(data.y_train) // self.settings["batch_size"]
        )
        model = method.make(teacher, student, steps)
        rows, labeled = self.rows(method.rows)
        x, y, loss = data.weak_train[rows], data.y_train[rows], None
        if isinstance(model, keras_dskd.Distiller):
            strong = data.strong_train[self._teacher_rows(method.pairs)[rows]]
            # With mixing or augmentation, no input is seen twice.
            if self.settings["mix"] or method.is_augmented:
                x = {"student": x, "teacher": strong}
            else:
                features = model.cache_teacher(strong, batch_size=256, verbose=0)
                x = {"student": x, "teacher_features": features}
            if labeled is not None:
                x["label_mask"] = labeled
                if method.confidence:
                    surest = log_probabilities(_logits(teacher, strong)).max(axis=1)
                    is_sure = surest >= np.log(method.confidence)
                    x["teacher_mask"] = labeled | is_sure
            student = model.student  # A method may have replaced the student.
        if method.label_smoothing or self.settings["mix"]:
            y = np.eye(self.data_set.data.classes, dtype="float32")[y]
            loss = keras.losses.CategoricalCrossentropy(
                from_logits=True, label_smoothing=method.label_smoothing
            )
        self._train(
            model,
            x,
            y,
            steps,
            loss=loss,
            mix=self.settings["mix"],
            labeled_share=method.labeled_share,
            moves=[_shift()] if method.is_augmented else None,
            average=method.is_averaged,
        )
        scores = self._scores(name, student, data.weak_test)
        correct = self._teacher_accuracy
        if not method.is_teacher_trained:
            correct = _accuracy(_logits(teacher, data.strong_test), data.y_test)
        return self._record(name, method, scores, correct, start)

    def run_teacher(self):
        """Scores the teacher on the strong modality: the record `"teacher"`."""
        start = time.perf_counter()
        scores = self._scores("teacher", self.teacher, self.data.strong_test)
        return self._record("teacher", None, scores, scores["accuracy"], start)

    @cached_property
    def data(self):
        """`PairedData`, whose test rows are those to score on."""
        settings = self.settings
        return data_sets.split(
            self.data_set, settings["split"], self.seed, settings["limit"]
        )

    @cached_property
    def labeled(self):
        """Which training rows have labels: a bool array, or `None` for all."""
        settings = self.settings
        return data_sets.labeled_rows(
            self.data_set,
            settings["split"],
            self.seed,
            settings["limit"],
            settings["labeled"],
            settings["labeled_scenes"],
        )

    @cached_property
    def teacher(self):
        """The trained teacher, read from its file if there is one."""
        path = self._teacher_path()
        if path.exists():
            return keras.saving.load_model(path)
        trained = self._network("teacher", _TEACHER)
        x, y = self.data.strong_train, self.data.y_train
        size = self.settings["batch_size"]
        steps = self.settings["teacher_epochs"] * (len(y) // size)
        if self.settings["teacher_rows"] == "labeled":
            x, y = x[self.labeled], y[self.labeled]
        self._train(trained, x, y, steps)
        # Leave out the optimizer's state, which would be two thirds of the file.
        teacher = self._network("teacher", _TEACHER)
        teacher.set_weights(trained.get_weights())
        self.teachers.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.keras")
        teacher.save(part)
        os.replace(part, path)  # A killed run must not leave an incomplete file.
        return teacher

    def _teacher_path(self):
        # The teacher does not depend on the weak modality or the student.
        identity = self.identity("teacher")
        identity["epochs"] = identity.pop("teacher_epochs")
        for name in ("degrade", "student_widths", "mix", "pairs"):
            del identity[name]
        if identity.pop("teacher_rows") == "all":
            del identity["labeled"], identity["labeled_scenes"]
        for name in ("method", "weight", "keras_dskd"):
            del identity[name]
        text = json.dumps(identity, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        return self.teachers / f"{self.data_set.name}-{self.seed}-{digest}.keras"

    def _network(self, role, first):
        rows = self.data.strong_train if role == "teacher" else self.data.weak_train
        widths = self.settings[f"{role}_widths"]
        network = getattr(models, self.settings["network"])
        # The projectors that a method creates next must also be the same for a seed.
        keras.utils.set_random_seed(first + self.seed)
        return network(rows.shape[1:], self.data_set.data.classes, widths, role)

    def rows(self, kind):
        """Training rows of a student, and which of them have labels (`None` for all).

        Args:
            kind: `"all"` for all pairs, or `"labeled"`.

        Raises:
            SystemExit: If there are fewer rows than the settings ask for.
        """
        labeled, count = self.labeled, self.settings["pairs"]
        if labeled is None:
            labeled = np.ones(len(self.data.y_train), bool)
        if kind == "labeled":
            return np.flatnonzero(labeled), None
        if count is None:
            count = len(labeled)
        if not labeled.sum() <= count <= len(labeled):
            raise SystemExit(
                f"--pairs {count}: there are {len(labeled)} pairs to train on, and "
                f"{labeled.sum()} of them have labels."
            )
        # All labeled rows, and a random choice of the others.
        chance = np.random.default_rng([4, self.seed]).random(len(labeled))
        rows = np.sort(np.argsort(chance - labeled)[:count])
        return rows, None if labeled[rows].all() else labeled[rows]

    def _teacher_rows(self, pairs):
        """The teacher row for each row of the student."""
        y, rng = self.data.y_train, np.random.default_rng([2, self.seed])
        if pairs == "any":
            return rng.permutation(len(y))
        rows = np.arange(len(y))
        if pairs == "class":
            for label in np.unique(y):
                of_class = np.flatnonzero(y == label)
                rows[of_class] = rng.permutation(of_class)
        return rows

    def _train(self, model, x, y, steps, **options):
        train(
            model,
            x,
            y,
            seed=self.seed,
            steps=steps,
            batch_size=min(self.settings["batch_size"], len(y)),
            learning_rate=self.settings["learning_rate"],
            **options,
        )

    def _scores(self, name, model, x):
        logits = _logits(model, x)
        if not np.isfinite(logits).all():
            raise SystemExit(
                f"\n{name} diverged on {self.data_set.name}, seed {self.seed}. Leave "
                "it out, or give it a smaller weight."
            )
        y = self.data.y_test
        structure = keras_dskd.structure_report(model, x, LAYERS, verbose=0).to_dict()
        return {
            "accuracy": _accuracy(logits, y),
            "nll": negative_log_likelihood(logits, y),
            "ece": expected_calibration_error(logits, y),
            "structure": structure["layers"],
        }

    @cached_property
    def _teacher_accuracy(self):
        return _accuracy(_logits(self.teacher, self.data.strong_test), self.data.y_test)

    def _record(self, name, method, scores, teacher_accuracy, start):
        return {
            **self.identity(name, method),
            **scores,
            "teacher_accuracy": teacher_accuracy,
            "train_samples": len(self.data.y_train),
            "scored_samples": len(self.data.y_test),
            "seconds": round(time.perf_counter() - start, 2),
        }


def _shift():
    """Shifts by at most an eighth of the image, without smoothing the noise."""
    return keras.layers.RandomTranslation(0.125, 0.125, interpolation="nearest")


def _logits(model, x):
    return model.predict(x, batch_size=256, verbose=0)


def _accuracy(logits, y):
    return float(np.mean(logits.argmax(axis=1) == y))
