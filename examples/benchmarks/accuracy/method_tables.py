r"""Tables and figures of the runs of `methods.py`, in Markdown and PNG.

    python examples/benchmarks/accuracy/method_tables.py out/methods/runs.jsonl \
        --plots out

It accepts several files, from several machines or backends. Differences are paired by
seed within one backend. Intervals are 95 % paired t intervals, not corrected. p-values
are Holm-corrected over the methods of a table.
"""

import argparse
from pathlib import Path

from comparisons import BASELINES, METRICS, groups, overall, slope
from epoch_choice import at_best_epochs
from method_choice import counts, with_chosen
from paired_statistics import holm
from records import kept, of_methods, read


def main(argv=None):
    """Prints the tables, and draws the figures if a folder is given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument(
        "--where",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="keep runs with these entries, such as split=test backend=jax",
    )
    parser.add_argument(
        "--methods", nargs="+", help="only these, the baselines and the teacher"
    )
    parser.add_argument(
        "--best-epochs",
        action="store_true",
        help="for each method, use the runs on test rows with the epochs that are "
        "best on validation rows; the files must include runs on both",
    )
    parser.add_argument(
        "--choose",
        nargs="+",
        metavar="METHOD",
        help="add the method `chosen`: for each seed, the best of these on validation "
        "rows; the files must include runs on both kinds of rows",
    )
    parser.add_argument("--metric", choices=list(METRICS), default="accuracy")
    parser.add_argument("--plots", type=Path, help="folder for the figures")
    arguments = parser.parse_args(argv)
    metric = METRICS[arguments.metric]
    records = kept(read(arguments.files), arguments.where)
    always = ("teacher", *BASELINES)
    if arguments.best_epochs:
        records = at_best_epochs(records)
    if arguments.choose:
        records = with_chosen(records, arguments.choose)
    made = groups(of_methods(records, arguments.methods, always))
    for group in made:
        print(f"\n### {title(group)}\n")
        table(*differences(group, metric))
        if "chosen" in group.runs:
            print(f"chosen: {counts(group.runs['chosen'])}\n")
        table(*diagnostics(group))
    for of_sets in families(made):
        if len(of_sets) > 1:
            print(f"\n### Over {len(of_sets)} data sets ({of_sets[0].backend})\n")
            over_sets(of_sets, metric)
    for of_epochs in curves(made):
        first = of_epochs[0]
        print(f"\n### {first.trained_on} ({first.backend}), {metric.label} by epochs\n")
        table(*curve(of_epochs, metric))
    for of_strengths in gaps(made):
        for baseline in BASELINES:
            print(f"\n### {_gap_title(of_strengths)}, difference to {baseline}\n")
            table(*gap(of_strengths, baseline, metric))
    if arguments.plots:
        draw(made, metric, arguments.plots)


def title(group):
    """The shared settings of a group's runs, in words."""
    about = group.about
    record = next(iter(next(iter(group.runs.values())).values()))
    labels = "".join(f"{phrase}, " for phrase in group.labels)
    return (
        f"{group.name} ({group.backend}): {record['train_samples']} rows to train, "
        f"{labels}{record['scored_samples']} {about['split']} rows, "
        f"{_epochs(group)}, batches of {about['batch_size']}"
    )


def differences(group, metric):
    """Header and rows: mean and spread of a metric, and differences to baselines."""
    against = {name: group.against(name, metric) for name in BASELINES}
    header = ["method", "seeds", metric.label, "spread"]
    for baseline in BASELINES:
        header += [f"- {baseline} [95 %]", "p (Holm)"]
    rows = []
    for method in group.runs:
        values = group.values(method, metric)
        spread = f"{values.std(ddof=1):.{metric.digits}f}" if len(values) > 1 else ""
        row = [method, len(values), f"{values.mean():.{metric.digits}f}", spread]
        for baseline in BASELINES:
            found = against[baseline].get(method)
            row += [in_words(found[0], metric), _p(*found)] if found else ["", ""]
        rows.append(row)
    return header, rows


def diagnostics(group):
    """Header and rows: accuracy, calibration and the structure of layers."""
    record = next(iter(group.runs[next(iter(group.runs))].values()))
    layers = list(record["structure"])
    header = ["method", *(metric.label for metric in METRICS.values())]
    measured = {
        "mean_correlation": ("correlation", 3),
        "uniformity": ("uniformity", 2),
        "effective_rank": ("rank", 1),
    }
    header += [f"{layer}: {name}" for layer in layers for name, _ in measured.values()]
    rows = []
    for method, runs in group.runs.items():
        row = [method]
        for metric in METRICS.values():
            row.append(f"{group.values(method, metric).mean():.{metric.digits}f}")
        for layer in layers:
            for key, (_, digits) in measured.items():
                values = [run["structure"][layer][key] for run in runs.values()]
                row.append(f"{sum(values) / len(values):.{digits}f}")
        rows.append(row)
    return header, rows


def families(made):
    """Lists of groups from one backend, one per data set, without degraded data."""
    found = {}
    for group in made:
        if group.degradation is None:
            found.setdefault(group.backend, []).append(group)
    for backend, of_sets in found.items():
        names = [group.name for group in of_sets]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            print(
                f"\n{backend}: no table over data sets. With several settings: "
                f"{', '.join(twice)}. Choose with --where."
            )
        else:
            yield of_sets


def over_sets(of_sets, metric):
    """Prints means over data sets, wins, ties and losses, and ranks."""
    found, p = overall(of_sets, metric)
    header = ["method", "data sets", metric.label]
    corrected = {}
    for baseline in BASELINES:
        header += [f"- {baseline} [95 %, seeds]", "[95 %, data sets]"]
        header += ["p (Holm, seeds)", "win / tie / loss"]
        compared = {
            method: result.against[baseline].seeds.p
            for method, result in found.items()
            if baseline in result.against and result.against[baseline].seeds
        }
        corrected[baseline] = holm(compared)
    rows = []
    for method, result in found.items():
        row = [method, result.sets, f"{result.mean:.{metric.digits}f}"]
        for baseline in BASELINES:
            versus = result.against.get(baseline)
            if versus is None:
                row += [""] * 4
                continue
            row += [
                in_words(versus.seeds, metric) if versus.seeds else "",
                interval(versus.sets, metric),
                _p(versus.seeds, corrected[baseline][method]) if versus.seeds else "",
                " / ".join(map(str, versus.outcomes)),
            ]
        rows.append([*row, "" if result.rank is None else f"{result.rank:.1f}"])
    table([*header, "mean rank"], rows)
    if p is not None:
        print(f"Friedman's test of equal ranks: p {_number(p)}")


def gaps(made):
    """Lists of groups that differ in the strength of one degradation, ascending."""
    found = {}
    for group in made:
        if group.degradation is not None:
            about = {**group.about, "degrade": group.degradation[0]}
            found.setdefault(repr(about), []).append(group)
    for of_strengths in found.values():
        yield sorted(of_strengths, key=lambda group: group.degradation[1])


def gap(of_strengths, baseline, metric):
    """Header and rows: a metric, and differences to a baseline, at each strength."""
    strengths = [f"{group.degradation[1]:g}" for group in of_strengths]
    header = ["method", *strengths, "slope [95 %]"]
    rows = []
    for name in ("teacher", *BASELINES):
        if any(name in group.runs for group in of_strengths):
            means = [
                f"{group.values(name, metric).mean():.{metric.digits}f}"
                if name in group.runs
                else ""
                for group in of_strengths
            ]
            rows.append([f"{name}: {metric.label}", *means, ""])
    against = [group.against(baseline, metric) for group in of_strengths]
    for method in dict.fromkeys(name for found in against for name in found):
        cells = [
            in_words(found[method][0], metric) if method in found else ""
            for found in against
        ]
        grows = slope(of_strengths, method, baseline, metric)
        rows.append([method, *cells, in_words(grows, metric) if grows else ""])
    return header, rows


def curves(made):
    """Lists of at least two groups that differ only in epochs, ascending."""
    found = {}
    for group in made:
        if isinstance(group.about["epochs"], int):
            about = {**group.about, "epochs": None}
            found.setdefault(repr(about), []).append(group)
    return [
        sorted(of_epochs, key=lambda group: group.about["epochs"])
        for of_epochs in found.values()
        if len(of_epochs) > 1
    ]


def curve(of_epochs, metric):
    """Header and rows: a metric at each number of epochs, the best one in bold."""
    header = ["method", *(str(group.about["epochs"]) for group in of_epochs)]
    rows = []
    for method in dict.fromkeys(name for group in of_epochs for name in group.runs):
        means = [
            group.values(method, metric).mean() if method in group.runs else None
            for group in of_epochs
        ]
        # The first of equal ones, as in `epoch_choice`.
        best = max(
            (i for i, mean in enumerate(means) if mean is not None),
            key=lambda i: metric.sign * means[i],
        )
        cells = ["" if mean is None else f"{mean:.{metric.digits}f}" for mean in means]
        if method != "teacher":  # The columns are not the teacher's epochs.
            cells[best] = f"**{cells[best]}**"
        rows.append([method, *cells])
    return header, rows


def draw(made, metric, folder):
    """Writes `intervals.png`, `gap.png` for degraded data, `epochs.png` for curves."""
    import method_plots

    folder.mkdir(parents=True, exist_ok=True)
    figures = {}
    if of_epochs := curves(made):  # One figure per number would be too many.
        figures["epochs"] = method_plots.by_epochs(of_epochs, metric)
    else:
        figures["intervals"] = method_plots.intervals(made, metric)
    graded = [of_strengths for of_strengths in gaps(made) if len(of_strengths) > 1]
    if graded:
        figures["gap"] = method_plots.gaps(graded, metric)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=150)
        print(f"Wrote {folder / name}.png")


def table(header, rows):
    """Prints a Markdown table."""
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")
    print()


def in_words(difference, metric):
    """`mean [low, high]`, signed."""
    text = f"{difference.mean:+.{metric.digits}f} {interval(difference, metric)}"
    return text.strip()


def interval(difference, metric):
    """`[low, high]`, signed, or an empty string if there is no interval."""
    if difference.low is None:
        return ""
    digits = metric.digits
    return f"[{difference.low:+.{digits}f}, {difference.high:+.{digits}f}]"


def _epochs(group):
    epochs = group.about["epochs"]
    if isinstance(epochs, int):
        return f"{epochs} epochs"
    return (
        "epochs by validation ("
        + ", ".join(f"{method} {epochs[method]}" for method in group.students)
        + ")"
    )


def _gap_title(of_strengths):
    first = of_strengths[0]
    return f"{first.about['data']}, {first.degradation[0]} ({first.backend})"


def _p(difference, p):
    """The p-value as text, or an empty string if there is no interval."""
    return "" if difference.low is None else _number(p)


def _number(p):
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


if __name__ == "__main__":
    main()
