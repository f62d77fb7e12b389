r"""Compare recipes with the student alone on tasks of each kind.

    KERAS_BACKEND=torch python examples/benchmarks/accuracy/tasks.py --seeds 3 \
        --out tasks.jsonl
    python examples/benchmarks/accuracy/tasks.py --table tasks.jsonl

The first command adds a line for each task and seed. The second command prints a table
from the lines of several backends. Tasks and networks are in `task_list.py`. Of 1,500
pairs, 100 have labels (`--pairs`, `--labeled`): the student alone trains on these 100,
and each method on all pairs. All students start from the same weights, and train for
the same number of steps.
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

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from training import train

METHODS = ("student", "soft targets", "dskd", "recommended")
BATCH = 50


def run(task, seed, steps, labeled, pairs, methods=METHODS):
    """The test scores of the teacher and of each method."""
    train_samples, (strong, weak, y) = task_list.samples(task, seed)
    keras.utils.set_random_seed(seed)
    teacher = task.network(24, "teacher")
    settings = {"seed": seed, "loss": task.loss}
    of_teacher, _, labels = train_samples
    train(teacher, of_teacher, labels, epochs=20, batch_size=BATCH, **settings)
    scores = {"teacher": task.score(y, teacher.predict(strong, verbose=0))}
    for method in methods:
        keras.utils.set_random_seed(seed)
        student = task.network(8, "student")
        with contextlib.redirect_stdout(io.StringIO()):  # Picked layers.
            model = distiller(method, teacher, student, steps)
        rows = labeled if model is student else pairs
        of_teacher, x, labels = first(rows, train_samples)
        if model is not student:
            x = {"teacher": of_teacher, "student": x}
            if labeled < pairs:
                x["label_mask"] = np.arange(pairs) < labeled
        train(model, x, labels, steps=steps, batch_size=min(BATCH, rows), **settings)
        scores[method] = task.score(y, student.predict(weak, verbose=0))
    return scores


def first(count, arrays):
    """The first rows of a structure of arrays."""
    return keras.tree.map_structure(lambda array: array[:count], arrays)


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
            cells.append(f"{difference.mean():+.1f}")
            if len(scores) > 1:
                error = difference.std(ddof=1) / len(scores) ** 0.5
                cells[-1] += f" ± {error:.1f}"
        print(f"| {task} | {backend} | {len(scores)} | {' | '.join(cells)} |")


def main():
    """Runs the tasks, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=task_list.TASKS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400, help="of each student")
    parser.add_argument("--labeled", type=int, default=100, help="labeled pairs")
    parser.add_argument("--pairs", type=int, default=task_list.TRAINING_SAMPLES)
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
            sizes = {
                "steps": arguments.steps * task_list.TASKS[name].length,
                "labeled": arguments.labeled,
                "pairs": arguments.pairs,
            }
            scores = run(task_list.TASKS[name], seed, **sizes)
            line = {"task": name, "backend": keras.backend.backend(), "seed": seed}
            lines.append({**line, **sizes, "scores": scores})
            if arguments.out:
                with arguments.out.open("a") as file:
                    file.write(json.dumps(lines[-1]) + "\n")
    table(lines)


if __name__ == "__main__":
    main()
