"""Figures of the runs of `methods.py`, readable with any color vision."""

import math

import numpy as np
from comparisons import BASELINES, overall
from matplotlib.figure import Figure

#: Okabe and Ito's blue and vermilion for the baselines, which also differ in marker.
BASELINE_STYLES = {"student": ("#0072B2", "o"), "soft_targets": ("#D55E00", "s")}

#: Okabe and Ito's colors, with markers and lines that also differ.
LINE_STYLES = (
    ("#0072B2", "o", "-"),
    ("#D55E00", "s", "--"),
    ("#009E73", "^", "-."),
    ("#CC79A7", "D", ":"),
    ("#E69F00", "v", "-"),
    ("#56B4E9", "P", "--"),
    ("#000000", "X", "-."),
)


def intervals(made, metric, columns=3):
    """Differences to both baselines with their intervals, one panel per data set.

    Args:
        made: `comparisons.Group`s.
        metric: A `comparisons.Metric`.
        columns: Panels side by side.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    panels = _panels(made, metric)
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    shown = [against for _, panel in panels for against in panel.values()]
    methods = list(dict.fromkeys(name for against in shown for name in against))
    figure = Figure(
        figsize=(2.2 + 2.8 * columns, rows * (1.3 + 0.24 * len(methods))),
        layout="constrained",
    )
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes, (title, against) in zip(grid.flat, panels, strict=False):
        axes.axvline(0, color="0.6", linewidth=0.8, zorder=0)
        for shift, baseline in zip((-0.16, 0.16), BASELINES, strict=True):
            _intervals(axes, methods, against[baseline], shift, baseline)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel(f"difference of {metric.label}", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(axis="y", color="0.92")
        axes.set_axisbelow(True)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_axis_off()
    grid[0, 0].set_yticks(range(len(methods)), methods)
    grid[0, 0].set_ylim(len(methods) - 0.5, -0.5)  # The first method is on top.
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, fontsize=8)
    return figure


def _panels(made, metric):
    """Pairs of a title and dict of baseline -> dict of method -> `Difference`.

    Undegraded data come first, if there are any, then the mean over data sets.
    """
    shown = [group for group in made if group.degradation is None] or made
    names = [group.name for group in shown]
    found = []
    for group in shown:
        several = names.count(group.name) > 1
        against = {name: group.against(name, metric) for name in BASELINES}
        found.append(
            (
                f"{group.name}\n{group.backend}" if several else group.name,
                {
                    baseline: {name: pair[0] for name, pair in compared.items()}
                    for baseline, compared in against.items()
                },
            )
        )
    if len(set(names)) == len(names) > 1:
        results, _ = overall(shown, metric)
        of_means = {
            baseline: {
                name: result.against[baseline].seeds
                for name, result in results.items()
                if baseline in result.against and result.against[baseline].seeds
            }
            for baseline in BASELINES
        }
        found.append(("mean over data sets", of_means))
    return found


def _intervals(axes, methods, found, shift, baseline):
    color, marker = BASELINE_STYLES[baseline]
    shown = [name for name in methods if name in found]
    differences = [found[name] for name in shown]
    axes.errorbar(
        [difference.mean for difference in differences],
        [methods.index(name) + shift for name in shown],
        xerr=_arms(differences),
        fmt=marker,
        color=color,
        markersize=4,
        linewidth=1.2,
        label=f"minus {baseline}, 95 % interval",
    )


def gaps(graded, metric):
    """Differences against the strength of a degradation, one panel per degradation.

    The upper row of panels shows differences to the student alone, the lower row
    differences to soft targets.

    Args:
        graded: Lists of `comparisons.Group`s, one list per degradation.
        metric: A `comparisons.Metric`.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    figure = Figure(figsize=(2.0 + 3.0 * len(graded), 6.4), layout="constrained")
    grid = figure.subplots(2, len(graded), sharex="col", sharey="row", squeeze=False)
    methods = list(
        dict.fromkeys(
            name for groups in graded for group in groups for name in group.students
        )
    )
    for column, groups in enumerate(graded):
        for row, baseline in enumerate(BASELINES):
            axes = grid[row, column]
            axes.axhline(0, color="0.6", linewidth=0.8, zorder=0)
            for number, method in enumerate(methods):
                _line(axes, groups, method, baseline, metric, number)
            axes.tick_params(labelsize=8)
            if column == 0:
                axes.set_ylabel(f"{metric.label}\nminus {baseline}", fontsize=8)
        name, _ = groups[0].degradation
        grid[0, column].set_title(f"{groups[0].about['data']}, {name}", fontsize=9)
        grid[1, column].set_xlabel(f"strength of {name}", fontsize=8)
    named = {}
    for axes in grid.flat:
        handles, labels = axes.get_legend_handles_labels()
        named.update(zip(labels, handles, strict=True))
    figure.legend(
        named.values(), named, loc="outside upper center", ncols=4, fontsize=8
    )
    return figure


def _line(axes, groups, method, baseline, metric, number):
    found = [(group, group.against(baseline, metric)) for group in groups]
    found = [(group, made[method][0]) for group, made in found if method in made]
    if not found:
        return
    color, marker, line = LINE_STYLES[number % len(LINE_STYLES)]
    # Shifted sideways, so that intervals do not overlap.
    shift = 0.012 * (number % 7 - 3)
    axes.errorbar(
        [group.degradation[1] + shift for group, _ in found],
        [difference.mean for _, difference in found],
        yerr=_arms([difference for _, difference in found]),
        color=color,
        marker=marker,
        linestyle=line,
        markersize=4,
        linewidth=1.2,
        label=method,
    )


def by_epochs(of_epochs, metric, columns=3):
    """A metric against the number of epochs, one panel per data set.

    The bars are standard errors.

    Args:
        of_epochs: Lists of `comparisons.Group`s that differ in epochs, ascending.
        metric: A `comparisons.Metric`.
        columns: Panels side by side.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    columns = min(columns, len(of_epochs))
    rows = math.ceil(len(of_epochs) / columns)
    figure = Figure(
        figsize=(0.8 + 3.0 * columns, 0.7 + 2.6 * rows), layout="constrained"
    )
    grid = figure.subplots(rows, columns, squeeze=False)
    methods = list(
        dict.fromkeys(
            name for groups in of_epochs for group in groups for name in group.students
        )
    )
    named = {}
    for axes, groups in zip(grid.flat, of_epochs, strict=False):
        for number, method in enumerate(methods):
            _curve(axes, groups, method, metric, number)
        axes.set_xscale("log", base=2)
        ticks = [group.about["epochs"] for group in groups]
        axes.set_xticks(ticks, map(str, ticks))
        axes.set_title(groups[0].trained_on, fontsize=9)
        axes.set_xlabel("epochs", fontsize=8)
        axes.set_ylabel(metric.label, fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(color="0.92")
        handles, labels = axes.get_legend_handles_labels()
        named.update(zip(labels, handles, strict=True))
    for axes in list(grid.flat)[len(of_epochs) :]:
        axes.set_axis_off()
    figure.legend(
        named.values(), named, loc="outside upper center", ncols=5, fontsize=8
    )
    return figure


def _curve(axes, groups, method, metric, number):
    found = [
        (group.about["epochs"], group.values(method, metric))
        for group in groups
        if method in group.runs
    ]
    color, marker, line = LINE_STYLES[number % len(LINE_STYLES)]
    axes.errorbar(
        # Shifted sideways, so that error bars do not overlap.
        [epochs * 1.02 ** (number % 7 - 3) for epochs, _ in found],
        [values.mean() for _, values in found],
        yerr=[
            values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else 0.0
            for _, values in found
        ],
        color=color,
        marker=marker,
        linestyle=line,
        markersize=4,
        linewidth=1.2,
        label=method,
    )


def _arms(differences):
    """Lengths of both arms of the intervals, `(2, n)`. 0 if there is no interval."""
    arms = [
        (0.0, 0.0)
        if made.low is None
        else (made.mean - made.low, made.high - made.mean)
        for made in differences
    ]
    return np.array(arms).reshape(-1, 2).T
