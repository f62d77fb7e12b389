"""Recipes on tasks of each kind, against the student alone.

    KERAS_BACKEND=torch python examples/benchmarks/tasks.py --seeds 5 --out tasks.jsonl
    python examples/benchmarks/tasks.py --table tasks.jsonl

The first command adds a line for each task and seed, and the second one prints the
table of the lines of several backends. Tasks and networks are in `task_list.py`. All
students start from the same weights and see the same batches.
"""

import argparse
import contextlib
import io
import json
import pathlib
import sys

import keras
import numpy as np
import task_list

import keras_dskd

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from training import train

METHODS = ("student", "soft targets", "dskd", "recommended")


def run(task, seed, epochs, methods=METHODS):
    """The test scores of the teacher and of each method."""
    everything, few, (strong, weak, y) = task_list.samples(task, seed)
    keras.utils.set_random_seed(seed)
    teacher = task.network(24, "teacher")
    settings = {"seed": seed, "batch_size": 50, "loss": task.loss}
    train(teacher, everything[0], everything[2], epochs=20, **settings)
    scores = {"teacher": task.score(y, teacher.predict(strong, verbose=0))}
    steps = epochs * (task_list.STUDENT_SAMPLES // 50)
    for method in methods:
        keras.utils.set_random_seed(seed)
        student = task.network(8, "student")
        with contextlib.redirect_stdout(io.StringIO()):  # The picked layers.
            model = distiller(method, teacher, student, steps)
        x = few[1] if model is student else {"teacher": few[0], "student": few[1]}
        train(model, x, few[2], epochs=epochs, **settings)
        scores[method] = task.score(y, student.predict(weak, verbose=0))
    return scores


def distiller(method, teacher, student, steps):
    """The model to train: the student, or a distiller around it."""
    if method == "student":
        return student
    if method == "dskd":
        return keras_dskd.dskd(teacher, student, steps=steps)
    recipe = keras_dskd.recommended(teacher, student, steps=steps)
    if method == "soft targets":
        recipe.distillation_loss_weights = [
            weight if hasattr(loss, "for_task") else 0.0
            for loss, weight in zip(
                recipe.distillation_losses,
                recipe.distillation_loss_weights,
                strict=True,
            )
        ]
    return recipe


def table(lines):
    """Mean scores in percent, and each method's difference to the student alone."""
    keys = dict.fromkeys((line["task"], line["backend"]) for line in lines)
    methods = [m for m in METHODS if m != "student"]
    print(f"| task | backend | seeds | teacher | student | {' | '.join(methods)} |")
    print("|---" * (5 + len(methods)) + "|")
    for task, backend in keys:
        scores = [
            line["scores"]
            for line in lines
            if (line["task"], line["backend"]) == (task, backend)
        ]
        cells = [
            f"{100 * np.mean([s[m] for s in scores]):.1f}"
            for m in ("teacher", "student")
        ]
        for method in methods:
            difference = 100 * np.array([s[method] - s["student"] for s in scores])
            error = (
                difference.std(ddof=1) / len(scores) ** 0.5
                if len(scores) > 1
                else np.nan
            )
            cells.append(f"{difference.mean():+.1f} ± {error:.1f}")
        print(f"| {task} | {backend} | {len(scores)} | {' | '.join(cells)} |")


def main():
    """Runs the tasks, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=task_list.TASKS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40, help="of the student")
    parser.add_argument("--out", type=pathlib.Path, help="file to add lines to")
    parser.add_argument("--table", type=pathlib.Path, nargs="+", help="files to show")
    arguments = parser.parse_args()
    if arguments.table:
        texts = [path.read_text() for path in arguments.table]
        table([json.loads(line) for text in texts for line in text.splitlines()])
        return
    lines = []
    for name in arguments.only or task_list.TASKS:
        for seed in range(arguments.seeds):
            scores = run(task_list.TASKS[name], seed, arguments.epochs)
            backend = keras.backend.backend()
            lines.append(
                {"task": name, "backend": backend, "seed": seed, "scores": scores}
            )
            if arguments.out:
                with arguments.out.open("a") as file:
                    file.write(json.dumps(lines[-1]) + "\n")
    table(lines)


if __name__ == "__main__":
    main()
