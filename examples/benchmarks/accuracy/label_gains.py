r"""A method's gain over the student alone: table, and bars with 95 % intervals.

    python examples/benchmarks/accuracy/label_gains.py --all out/methods/runs.jsonl \
        --few out/few/runs.jsonl --out gains.png

It uses runs on test rows, some with all labels and some with few. Each data set has up
to three bars: few labels with a teacher that learned from all labels, few labels with a
teacher that learned from the same labels, and all labels. A bar is a
mean over seeds. Groups of runs with fewer seeds than `--seeds` have no bar.
"""

import argparse
from pathlib import Path

import numpy as np
from comparisons import METRICS, groups
from matplotlib.figure import Figure
from method_tables import in_words, table
from records import kept, read

METRIC = METRICS["accuracy"]

#: The bars of a data set, with Okabe and Ito's colors and hatches that also differ.
BARS = {
    "few labels, teacher of all labels": ("#0072B2", ""),
    "few labels, teacher of the same labels": ("#56B4E9", "///"),
    "all labels": ("#E69F00", "..."),
}


def gains(all_labels, few_labels, method, seeds):
    """Differences of a method to the student alone.

    Args:
        all_labels: Records of runs with all labels.
        few_labels: Records of runs with `--labeled` or `--labeled-scenes`. Other runs
            are left out.
        method: The method with a teacher.
        seeds: The least number of seeds.

    Returns:
        Dict of data set -> dict of key of `BARS` -> `Difference`.

    Raises:
        SystemExit: If a data set has two groups of runs for one bar.
    """
    found = {}
    for records, are_few in ((few_labels, True), (all_labels, False)):
        for group in groups(records) if records else ():
            made = group.against("student", METRIC).get(method)
            runs = group.runs.get(method, ())
            if made is None or len(runs) < seeds or bool(group.labels) != are_few:
                continue
            if not are_few:
                bar = "all labels"
            elif group.about["teacher_rows"] == "labeled":
                bar = "few labels, teacher of the same labels"
            else:
                bar = "few labels, teacher of all labels"
            bars = found.setdefault(group.name, {})
            if bar in bars:
                raise SystemExit(f"{group.name}: several groups of runs for '{bar}'.")
            bars[bar] = made[0]
    return found


def rows_of(found):
    """Header and rows of a table: means, with intervals in brackets."""
    rows = [
        [name, *(in_words(made[bar], METRIC) if bar in made else "" for bar in BARS)]
        for name, made in found.items()
    ]
    return ["data", *BARS], rows


def draw(found, method):
    """Horizontal bars, in groups of one data set.

    Args:
        found: Result of `gains`.
        method: The method's name.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    figure = Figure(figsize=(5.0, 1.3 + 0.62 * len(found)), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(BARS)
    for number, (bar, (color, hatch)) in enumerate(BARS.items()):
        shown = [place for place, made in enumerate(found.values()) if bar in made]
        made = [list(found.values())[place][bar] for place in shown]
        arms = [(one.mean - one.low, one.high - one.mean) for one in made]
        axes.barh(
            [place + height * (number - 1) for place in shown],
            [one.mean for one in made],
            height,
            xerr=np.array(arms).reshape(-1, 2).T,
            color=color,
            edgecolor="white",
            hatch=hatch,
            error_kw={"linewidth": 1.2, "capsize": 2},
            label=bar,
        )
    axes.axvline(0, color="0.3", linewidth=0.8)
    axes.set_yticks(range(len(found)), list(found))
    axes.set_ylim(len(found) - 0.5, -0.5)  # The first data set is on top.
    axes.set_xlabel(f"gain of {method}, points of accuracy")
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=1)
    return figure


def main(argv=None):
    """Prints a table, and draws the figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--all", nargs="+", type=Path, required=True, help="runs with all labels"
    )
    parser.add_argument(
        "--few", nargs="+", type=Path, default=[], help="runs with few labels"
    )
    parser.add_argument("--method", default="recommended")
    parser.add_argument("--seeds", type=int, default=5, help="at least 2")
    parser.add_argument("--out", type=Path, help="file for the figure")
    arguments = parser.parse_args(argv)
    on_test = [
        kept(read(files), ["split=test"]) if files else []
        for files in (arguments.all, arguments.few)
    ]
    found = gains(*on_test, arguments.method, max(arguments.seeds, 2))
    table(*rows_of(found))
    if arguments.out:
        draw(found, arguments.method).savefig(arguments.out, dpi=150)
        print(f"Wrote {arguments.out}")


if __name__ == "__main__":
    main()
