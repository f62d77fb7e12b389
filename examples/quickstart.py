"""The accelerometer of a watch teaches a student that reads only the gyroscope.

    python examples/quickstart.py

Ten people wore a watch and did seven shoulder exercises, while both sensors recorded
(Burns et al. 2018, arXiv 1802.01489; seglearn ships the recordings). The student learns
to recognize the exercise from the gyroscope. It has the labels of two people, and the
pairs of seven. The other three people are the test set.

Prints a table of accuracies. Writes the table and the student to `--out`.
"""

import argparse
import json
from pathlib import Path

import keras
import numpy as np
from compare import accuracy, table
from models import sequence_cnn
from seglearn.datasets import load_watch
from training import Progress, one_cycle

import keras_dskd

WIDTHS = {"teacher": (32, 64, 128, 128), "student": (16, 32, 64, 64)}


def windows(length=100, stride=50):
    """Windows of 2 seconds: both sensors `(n, 100, 3)`, exercises, people."""
    watch = load_watch()
    cut, exercises, people = [], [], []
    for recording, exercise, person in zip(
        watch["X"], watch["y"], watch["subject"], strict=True
    ):
        for start in range(0, len(recording) - length + 1, stride):
            cut.append(recording[start : start + length])
            exercises.append(exercise)
            people.append(person)
    both = np.stack(cut).astype("float32")
    return both[..., :3], both[..., 3:], np.array(exercises, "int32"), np.array(people)


def network(role, seed):
    """A new teacher or student."""
    keras.utils.set_random_seed(seed)
    return sequence_cnn((100, 3), 7, WIDTHS[role], role)


def fit(model, data, steps):
    """Trains for a number of steps, rounded to whole epochs."""
    epochs = max(round(steps / len(data)), 1)
    optimizer = keras.optimizers.AdamW(one_cycle(3e-3, epochs * len(data)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss)
    model.fit(data, epochs=epochs, shuffle=False, verbose=0)


def run(data, seed, labeled_people, steps, progress):
    """Runs one seed: a dict of accuracies by name, and the distilled student."""
    strong, weak, y, people = data
    train, test = people <= 7, people > 7
    # Each channel has mean 0 and standard deviation 1 over the training people.
    strong, weak = (x - x[train].mean((0, 1)) for x in (strong, weak))
    strong, weak = (x / x[train].std((0, 1)) for x in (strong, weak))
    order = np.random.default_rng(seed).permutation(np.unique(people[train]))
    known = np.isin(people, order[:labeled_people])
    others = train & ~known  # Both sensors ran, but nobody noted the exercise.
    batches = {"batch_size": 64, "seed": seed, "drop_remainder": True}
    scores = {}

    # Models of one sensor. A teacher from elsewhere may have learned from more people
    # than the student has labels for.
    few, all_people = f"{labeled_people} people", "all people"
    models = {}
    for name, role, x, rows in (
        (f"teacher, {all_people}", "teacher", strong, train),
        (f"teacher, {few}", "teacher", strong, known),
        ("student alone", "student", weak, known),
        (f"student, {all_people}", "student", weak, train),
    ):
        progress.next(f"seed {seed}, {name}")
        models[name] = network(role, seed)
        fit(models[name], keras_dskd.ArrayDataset(x[rows], y[rows], **batches), steps)
        scores[name] = accuracy(models[name], x[test], y[test])

    # Students with a teacher: all pairs teach, and labels count only if a pair has one.
    x, labels = keras_dskd.with_unlabeled(
        {"teacher": strong[known], "student": weak[known]},
        y[known],
        {"teacher": strong[others], "student": weak[others]},
    )
    pairs = keras_dskd.LabeledShare(x, labels, **batches)
    for name in (few, all_people):
        progress.next(f"seed {seed}, student with the teacher of {name}")
        student = network("student", seed)
        distiller = keras_dskd.recommended(
            models[f"teacher, {name}"], student, ["block2", "block3"], steps=steps
        )
        fit(distiller, pairs, steps)
        scores[f"+ teacher, {name}"] = accuracy(student, weak[test], y[test])
    return scores, student


def main():
    """Trains, prints the table, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="1 or more")
    parser.add_argument(
        "--labeled", type=int, default=2, choices=range(1, 7), help="people"
    )
    parser.add_argument("--steps", type=int, default=600, help="of each training")
    parser.add_argument("--out", type=Path, default=Path("out/quickstart"))
    arguments = parser.parse_args()
    if arguments.seeds < 1:
        parser.error(f"--seeds must be 1 or more. Received: {arguments.seeds}")
    progress = Progress(6 * arguments.seeds)
    data, runs = windows(), []
    for seed in range(arguments.seeds):
        scores, student = run(data, seed, arguments.labeled, arguments.steps, progress)
        runs.append(scores)
    progress.done()
    scores = {name: [of_seed[name] for of_seed in runs] for name in runs[0]}
    arguments.out.mkdir(parents=True, exist_ok=True)
    student.save(arguments.out / "student.keras")  # Reads only the gyroscope.
    (arguments.out / "results.json").write_text(json.dumps(scores, indent=2) + "\n")
    print(f"\n{table(scores, 'accuracy')}\n\nWrote {arguments.out}/student.keras")


if __name__ == "__main__":
    main()
