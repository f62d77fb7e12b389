"""Compare methods on paired data: same seeds, weights and order of batches for all.

Each seed trains one teacher on the strong modality and draws one set of initial
weights for the student. Every method starts from these weights and sees the same
batches in the same order, so differences between methods are paired.
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from scipy import stats
from training import Progress, train

import keras_dskd


@dataclass(frozen=True)
class PairedData:
    """Paired images as floats. Row i of strong and weak shows the same thing."""

    strong_train: np.ndarray
    weak_train: np.ndarray
    y_train: np.ndarray
    strong_test: np.ndarray
    weak_test: np.ndarray
    y_test: np.ndarray

    @property
    def classes(self):
        """Number of classes."""
        return int(self.y_train.max()) + 1


def alone(teacher, student, steps):
    """The student on its own modality and labels."""
    return student


def soft_targets(teacher, student, steps):
    """Soft targets and labels, with equal weights."""
    return keras_dskd.Distiller(teacher, student, keras_dskd.losses.SoftTargets(4.0))


def dskd(teacher, student, steps):
    """The paper's method."""
    return keras_dskd.dskd(teacher, student, "features", "block2", steps=steps)


def recommended(teacher, student, steps):
    """The best combination that we measured."""
    return keras_dskd.recommended(teacher, student, ["block2", "block3"], steps=steps)


METHODS = {
    "student alone": alone,
    "+ soft targets": soft_targets,
    "+ dskd": dskd,
    "+ recommended": recommended,
}


def accuracy(model, x, y):
    """Share of correct predictions."""
    return float(np.mean(model.predict(x, verbose=0).argmax(axis=-1) == y))


def compare(
    data,
    make_teacher,
    make_student,
    *,
    seeds,
    epochs,
    batch_size,
    out,
    loss=None,
    methods=METHODS,
    score=accuracy,
    score_name="accuracy",
    layers=("block2", "features"),
):
    """Trains teachers and students, prints a table, and writes the results.

    Args:
        data: `PairedData`, or a function that returns it for a seed.
        make_teacher: Function that returns a new teacher.
        make_student: Function that returns a new student.
        seeds: Number of seeds.
        epochs: Epochs of every training.
        batch_size: Samples per batch.
        out: Folder for `results.json`, the first seed's `student.keras` and its
            `history.png`, `structure.png` and `structure.html`.
        loss: Loss for the labels; by default, the loss for class indices.
        methods: Dict that maps names to functions of teacher, student and number of
            steps. Each function returns the model to train. The dict must contain
            "student alone" and "+ recommended".
        score: Function of model, inputs and labels, such as `accuracy`. 1 is best.
        score_name: Name of the score.
        layers: Layers of teacher and student whose structure is reported.

    Returns:
        The results, as written to `results.json`.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    progress = Progress(total=seeds * (1 + len(methods)))
    scores = {"teacher, strong modality": [], **{method: [] for method in methods}}
    data_of = data if callable(data) else lambda seed: data
    report = functools.partial(_report, list(layers))
    reports = []
    for seed in range(seeds):
        data = data_of(seed)
        steps = epochs * (len(data.y_train) // batch_size)
        progress.next(f"seed {seed}, teacher")
        keras.utils.set_random_seed(seed)
        teacher = make_teacher()
        settings = {"epochs": epochs, "batch_size": batch_size, "loss": loss}
        fit = functools.partial(train, seed=seed, **settings)
        fit(teacher, data.strong_train, data.y_train)
        reached = score(teacher, data.strong_test, data.y_test)
        scores["teacher, strong modality"].append(reached)
        if seed == 0:
            reports.append(report(teacher, data.strong_test, data.y_test, "teacher"))
        keras.utils.set_random_seed(1000 + seed)
        initial = make_student().get_weights()
        for method, make in methods.items():
            progress.next(f"seed {seed}, {method}")
            student = make_student()
            student.set_weights(initial)
            model = make(teacher, student, steps)
            x = data.weak_train
            if model is not student:
                x = {"teacher": data.strong_train, "student": data.weak_train}
            history = fit(model, x, data.y_train)
            scores[method].append(score(student, data.weak_test, data.y_test))
            if seed == 0 and method != "+ soft targets":
                reports.append(report(student, data.weak_test, data.y_test, method))
            if seed == 0 and method == "+ recommended":
                student.save(out / "student.keras")
                keras_dskd.plot_history(history, path=out / "history.png")
    progress.done()
    results = {
        "backend": keras.backend.backend(),
        "keras": keras.__version__,
        "epochs": epochs,
        "batch_size": batch_size,
        "train_samples": len(data.y_train),
        "test_samples": len(data.y_test),
        score_name.replace(" ", "_"): scores,
        "structure": [report.to_dict() for report in reports],
    }
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    reports[0].plot(*reports[1:], path=out / "structure.png")
    reports[0].to_html(out / "structure.html", *reports[1:])
    print(f"\n{table(scores, score_name)}\n")
    reports[0].summary(*reports[1:])
    print(f"\nWrote {', '.join(str(path) for path in sorted(out.iterdir()))}")
    return results


def table(scores, name):
    """Scores as text: mean, spread, and the paired difference to the student."""
    baseline = np.array(scores["student alone"])
    lines = [
        f"{f'test {name}, %':26} {'mean':>6} {'spread':>7}   "
        "difference to the student alone [95 % interval]"
    ]
    for method, values in scores.items():
        values = np.array(values)
        line = f"{method:26} {100 * values.mean():6.2f} "
        line += f"{100 * values.std(ddof=1):7.2f}" if len(values) > 1 else f"{'':7}"
        if method != "student alone" and not method.startswith("teacher"):
            line += f"   {_difference(100 * (values - baseline))}"
        lines.append(line)
    lines.append(
        f"seeds: {len(baseline)}; spread: standard deviation over seeds; interval: "
        "paired t, uncorrected"
    )
    return "\n".join(lines)


def _difference(differences):
    text = f"{differences.mean():+.2f}"
    if len(differences) > 1:
        half = stats.sem(differences) * stats.t.ppf(0.975, len(differences) - 1)
        text += f" [{differences.mean() - half:+.2f}, {differences.mean() + half:+.2f}]"
    return text


def _report(layers, model, x, y, name):
    # Accuracy needs one label per sample.
    labels = y if y.ndim == 1 else None
    return keras_dskd.structure_report(model, x, layers, labels, name=name, verbose=0)
