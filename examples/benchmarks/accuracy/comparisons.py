"""Compare each method in the runs of `methods.py` with two baselines."""

from dataclasses import dataclass

import numpy as np
from paired_statistics import (
    Difference,
    holm,
    mean_ranks,
    outcome,
    paired_difference,
)
from records import RESULTS

#: The baselines of all methods: no teacher, and the simplest use of a teacher.
BASELINES = ("student", "soft_targets")


@dataclass(frozen=True)
class Metric:
    """A number of a record, as tables show it.

    Attributes:
        name: Its name in records.
        label: Its name in tables.
        scale: Factor from records to tables.
        digits: Number of digits after the decimal point.
        sign: 1 if higher is better, -1 if lower is better.
    """

    name: str
    label: str
    scale: float
    digits: int
    sign: int


METRICS = {
    "accuracy": Metric("accuracy", "accuracy, %", 100.0, 2, 1),
    "nll": Metric("nll", "NLL", 1.0, 3, -1),
    "ece": Metric("ece", "ECE, %", 100.0, 2, -1),
}


@dataclass(frozen=True)
class Group:
    """Runs that differ only in method and seed.

    Attributes:
        about: Entries of their records that are the same for all.
        runs: Dict of method -> dict of seed -> record.
    """

    about: dict
    runs: dict

    @property
    def name(self):
        """The data, and how they were degraded."""
        return " ".join(filter(None, (self.about["data"], self.about["degrade"])))

    @property
    def trained_on(self):
        """The data, and the maximum number of rows."""
        limit = self.about["limit"]
        text = f"{self.name}, {limit} rows" if limit else f"{self.name}, all rows"
        return ", ".join([text, *self.labels])

    @property
    def labels(self):
        """Which rows had labels, as a list of phrases; empty if all rows had."""
        labeled, scenes = self.about.get("labeled"), self.about.get("labeled_scenes")
        phrases = []
        if labeled:
            share = f"{labeled:.0%}" if labeled < 1 else f"{labeled:g}"
            phrases.append(f"{share} labeled")
        if scenes:
            phrases.append(f"{scenes} scene{'s' if scenes > 1 else ''} labeled")
        if self.about.get("teacher_rows") == "labeled":
            phrases.append("teacher on these")
        if self.about.get("pairs"):
            phrases.append(f"{self.about['pairs']} pairs")
        return phrases

    @property
    def backend(self):
        """The backend, and the version of Keras."""
        return f"{self.about['backend']}, Keras {self.about['keras']}"

    @property
    def students(self):
        """Names of all methods that were run, without the teacher."""
        return [name for name in self.runs if name != "teacher"]

    @property
    def degradation(self):
        """`(name, strength)` of the degradation, or `None`."""
        if self.about["degrade"] is None:
            return None
        name, _, strength = self.about["degrade"].partition(":")
        return name, float(strength)

    def values(self, method, metric):
        """The metric of a method's runs, as tables show it, one value per seed."""
        runs = self.runs[method]
        return np.array([metric.scale * runs[seed][metric.name] for seed in runs])

    def against(self, baseline, metric):
        """Every method's difference to a baseline, over the seeds that both ran.

        Args:
            baseline: One of `BASELINES`.
            metric: A `Metric`.

        Returns:
            Dict of method -> `(Difference, p)`, with p Holm-corrected over these
            methods. Earlier baselines are left out, because they have the same
            comparison with the opposite sign. Empty if the baseline was not run.
        """
        if baseline not in self.runs:
            return {}
        left_out = ("teacher", *BASELINES[: BASELINES.index(baseline) + 1])
        differences = {}
        for method in self.runs:
            if method not in left_out:
                pair = self._paired(method, baseline, metric)
                if pair is not None:
                    differences[method] = paired_difference(*pair)
        corrected = holm({name: made.p for name, made in differences.items()})
        return {name: (differences[name], corrected[name]) for name in differences}

    def _paired(self, method, baseline, metric):
        runs, others = self.runs[method], self.runs[baseline]
        seeds = [seed for seed in runs if seed in others]
        if not seeds:
            return None
        return [
            [metric.scale * side[seed][metric.name] for seed in seeds]
            for side in (runs, others)
        ]


def groups(records):
    """The records in groups that differ only in method and seed, in order.

    Raises:
        SystemExit: If there are no records, if some are scored on validation rows and
            others on test rows, or if the default weight of a method has changed
            between runs.
    """
    splits = {record["split"] for record in records}
    if len(splits) != 1:
        raise SystemExit(
            "A table is of validation rows or of test rows. These files hold runs on: "
            f"{', '.join(sorted(splits)) or 'none'}. Choose with --where split=test"
        )
    found = {}
    for record in records:
        names = sorted(set(record) - {*RESULTS, "method", "weight", "seed", "chosen"})
        about = {name: record[name] for name in names}
        group = found.setdefault(repr(about), Group(about, {}))
        runs = group.runs.setdefault(record["method"], {})
        if record["seed"] in runs:
            raise SystemExit(
                f"{group.name}: {record['method']} was run with weight "
                f"{record['weight']} and with another. Keep one of them."
            )
        runs[record["seed"]] = record
    return list(found.values())


@dataclass(frozen=True)
class Versus:
    """A method against a baseline, over data sets, each of which counts once.

    Attributes:
        sets: `Difference` with one pair per data set, to generalize to other data sets.
        seeds: `Difference` with one pair per seed, each a mean over the data sets, to
            generalize to other seeds on these data sets. `None` if no seed was run on
            all data sets.
        outcomes: Numbers of wins, ties and losses. A win is a significant difference on
            one data set, by the Holm-corrected p.
    """

    sets: Difference
    seeds: Difference | None
    outcomes: tuple


@dataclass(frozen=True)
class Overall:
    """The results of a method over data sets.

    Attributes:
        sets: Number of data sets on which it was run.
        mean: Mean of its metric.
        against: Dict of baseline -> `Versus`.
        rank: Mean rank, or `None` if it was not run on all data sets.
    """

    sets: int
    mean: float
    against: dict
    rank: float | None


def overall(of_sets, metric):
    """The results of each method over data sets. Each data set counts once.

    Args:
        of_sets: `Group`s, one per data set.
        metric: A `Metric`.

    Returns:
        Dict of method -> `Overall`, and Friedman's p over methods that were run on all
        data sets, or `None`.
    """
    methods = list(dict.fromkeys(name for group in of_sets for name in group.students))
    means = {
        method: [
            group.values(method, metric).mean()
            for group in of_sets
            if method in group.runs
        ]
        for method in methods
    }
    ranks, p = mean_ranks(
        {
            method: metric.sign * np.array(values)
            for method, values in means.items()
            if len(values) == len(of_sets)
        }
    )
    compared = {
        baseline: [group.against(baseline, metric) for group in of_sets]
        for baseline in BASELINES
    }
    found = {
        method: Overall(
            len(means[method]),
            float(np.mean(means[method])),
            {
                baseline: _versus(of_sets, method, baseline, made, metric)
                for baseline, made in compared.items()
                if any(method in c for c in made)
            },
            ranks.get(method),
        )
        for method in methods
    }
    return found, p


def _versus(of_sets, method, baseline, compared, metric):
    """`Versus`; `compared` is the result of `Group.against` for each data set."""
    on_sets = [of_set[method] for of_set in compared if method in of_set]
    outcomes = [outcome(difference, p) for difference, p in on_sets]
    if metric.sign < 0:
        swapped = {"win": "loss", "loss": "win", "tie": "tie"}
        outcomes = [swapped[result] for result in outcomes]
    return Versus(
        _to_zero([difference.mean for difference, _ in on_sets]),
        _over_seeds(
            [
                group
                for group, of_set in zip(of_sets, compared, strict=True)
                if method in of_set
            ],
            method,
            baseline,
            metric,
        ),
        tuple(outcomes.count(result) for result in ("win", "tie", "loss")),
    )


def _over_seeds(of_sets, method, baseline, metric):
    seeds = set.intersection(
        *(set(group.runs[name]) for group in of_sets for name in (method, baseline))
    )
    if not seeds:
        return None
    means = [
        np.mean(
            [
                group.runs[method][seed][metric.name]
                - group.runs[baseline][seed][metric.name]
                for group in of_sets
            ]
        )
        for seed in sorted(seeds)
    ]
    return _to_zero(metric.scale * np.array(means))


def _to_zero(differences):
    return paired_difference(differences, np.zeros(len(differences)))


def slope(of_strengths, method, baseline, metric):
    """How a difference grows with the strength of a degradation.

    Args:
        of_strengths: `Group`s, one per strength.
        method: The method.
        baseline: The baseline.
        metric: A `Metric`.

    Returns:
        `Difference` between the least-squares slopes, one per seed, and 0. The unit is
        the change of the metric from strength 0 to strength 1. `None` with fewer than
        two strengths.
    """
    of_strengths = [
        group for group in of_strengths if {method, baseline} <= set(group.runs)
    ]
    strengths = [group.degradation[1] for group in of_strengths]
    seeds = [
        set(group.runs[name]) for group in of_strengths for name in (method, baseline)
    ]
    if len(strengths) < 2 or not set.intersection(*seeds):
        return None
    slopes = []
    for seed in sorted(set.intersection(*seeds)):
        differences = [
            group.runs[method][seed][metric.name]
            - group.runs[baseline][seed][metric.name]
            for group in of_strengths
        ]
        slopes.append(metric.scale * np.polyfit(strengths, differences, 1)[0])
    return _to_zero(slopes)
