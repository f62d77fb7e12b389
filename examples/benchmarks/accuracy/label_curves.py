r"""Accuracy against the number of labels, from runs of `methods.py`: table and figure.

    python examples/benchmarks/accuracy/label_curves.py out/few/runs.jsonl \
        --out labels.png

It uses runs on test rows with `--labeled` or `--labeled-scenes`, and runs with all
labels. Each data set has three curves: the student alone, the method with a teacher
that learned from all labels, and the method with a teacher that learned from the
student's labels.
"""

import argparse
import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from method_plots import LINE_STYLES
from method_tables import table
from records import kept, read

ALL = math.inf

#: Entries of a record that are the same for all runs of a curve.
SHARED = ("epochs", "limit", "batch_size", "degrade", "mix", "network")

TEACHERS = {
    None: "student alone",
    "all": "with a teacher that learned from all labels",
    "labeled": "with a teacher that learned from the same labels",
}


def curves(records, method):
    """Accuracies in percent by number of labels.

    Args:
        records: Lines of `methods.py`.
        method: The method with a teacher.

    Returns:
        Dict of `"data set (backend)"` -> dict of key of `TEACHERS` -> dict of number of
        labeled rows or scenes, or `ALL`, ascending -> array of one accuracy per seed.

    Raises:
        SystemExit: If runs of a data set differ in entries that a curve must share.
    """
    found, settings = {}, {}
    for record in records:
        count = record.get("labeled_scenes") or record.get("labeled") or ALL
        if record["method"] == "student":
            teachers = [None]
        elif record["method"] != method or record.get("pairs"):
            continue
        elif count == ALL:  # Both teachers are the same.
            teachers = ["all", "labeled"]
        else:
            teachers = [record["teacher_rows"]]
        for teacher in teachers:
            data = f"{record['data']} ({record['backend']})"
            about = {name: record.get(name) for name in SHARED}
            if settings.setdefault(data, about) != about:
                raise SystemExit(
                    f"{data}: runs of several settings. Choose with --where. "
                    f"Received: {settings[data]} and {about}"
                )
            by_count = found.setdefault(data, {}).setdefault(teacher, {})
            # The student alone does not depend on the teacher.
            by_count.setdefault(count, {})[record["seed"]] = 100 * record["accuracy"]
    return {
        data: {
            teacher: {
                count: np.array(list(by_count[count].values()))
                for count in sorted(by_count)
            }
            for teacher, by_count in by_teacher.items()
        }
        for data, by_teacher in found.items()
    }


def rows_of(by_teacher):
    """Header and rows of a table: means, and in brackets the number of seeds."""
    counts = sorted({count for curve in by_teacher.values() for count in curve})
    header = ["labels", *(_name(count) for count in counts)]
    rows = []
    for teacher, words in TEACHERS.items():
        curve = by_teacher.get(teacher, {})
        cells = [
            f"{curve[count].mean():.1f} ({len(curve[count])})" if count in curve else ""
            for count in counts
        ]
        if any(cells):
            rows.append([words, *cells])
    return header, rows


def draw(found, unit):
    """One panel per data set: means, with standard errors over seeds.

    Args:
        found: Result of `curves`.
        unit: Unit of the horizontal axis.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    figure = Figure(figsize=(0.8 + 4.2 * len(found), 4.0), layout="constrained")
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    for axes, (data, by_teacher) in zip(panels, found.items(), strict=True):
        counts = sorted({count for curve in by_teacher.values() for count in curve})
        for number, (teacher, words) in enumerate(TEACHERS.items()):
            curve = by_teacher.get(teacher)
            if not curve:
                continue
            color, marker, line = LINE_STYLES[number]
            axes.errorbar(
                # Shifted sideways, so that error bars do not overlap.
                [counts.index(count) + 0.03 * (number - 1) for count in curve],
                [values.mean() for values in curve.values()],
                yerr=[
                    values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0
                    for values in curve.values()
                ],
                color=color,
                marker=marker,
                linestyle=line,
                label=words,
            )
        axes.set_xticks(range(len(counts)), map(_name, counts))
        axes.set_xlabel(unit)
        axes.set_title(data)
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
    panels[0].set_ylabel("test accuracy, %")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=1)
    return figure


def _name(count):
    return "all" if count == ALL else f"{count:g}"


def main(argv=None):
    """Prints a table for each data set, and draws the figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument(
        "--where",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="keep runs with these entries, such as data=digits backend=jax",
    )
    parser.add_argument("--method", default="recommended")
    parser.add_argument("--unit", default="labels", help="of the horizontal axis")
    parser.add_argument("--out", type=Path, help="file for the figure")
    arguments = parser.parse_args(argv)
    records = kept(read(arguments.files), ["split=test", *arguments.where])
    found = curves(records, arguments.method)
    for data, by_teacher in found.items():
        print(f"\n### {data}, {arguments.method}, accuracy, % (seeds)\n")
        table(*rows_of(by_teacher))
    if arguments.out:
        draw(found, arguments.unit).savefig(arguments.out, dpi=150)
        print(f"Wrote {arguments.out}")


if __name__ == "__main__":
    main()
