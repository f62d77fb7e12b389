"""Differences between methods that were run with the same seeds."""

from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Difference:
    """A mean difference and what is known of it.

    Attributes:
        mean: The mean.
        low: Lower end of the interval, or `None` where nothing can be said: with one
            pair, or where all differences are one number other than 0, whose spread is
            not 0 but finer than what was counted.
        high: Upper end, likewise.
        p: Two-sided p-value against no difference; 1 where nothing can be said.
        pairs: Number of pairs.
    """

    mean: float
    low: float | None
    high: float | None
    p: float
    pairs: int


def paired_difference(values, others, confidence=0.95):
    """The mean of `values - others`, with its paired t interval.

    Args:
        values: One number a pair.
        others: The numbers that these are paired with.
        confidence: Of the interval.

    Returns:
        A `Difference`.

    Raises:
        ValueError: If there are no pairs.
    """
    values, others = np.asarray(values, float), np.asarray(others, float)
    if values.shape != others.shape or values.ndim != 1 or not len(values):
        raise ValueError(
            "Expected one value a pair on both sides. Received: "
            f"values.shape={values.shape}, others.shape={others.shape}"
        )
    differences = values - others
    mean, pairs = float(differences.mean()), len(differences)
    # Rounding makes other numbers of equal differences.
    if pairs == 1 or np.ptp(differences) <= 1e-12 * np.abs(differences).max():
        bound = 0.0 if pairs > 1 and mean == 0 else None
        return Difference(mean, bound, bound, 1.0, pairs)
    half = stats.sem(differences) * stats.t.ppf((1 + confidence) / 2, pairs - 1)
    p = stats.ttest_1samp(differences, 0.0).pvalue
    return Difference(mean, float(mean - half), float(mean + half), float(p), pairs)


def holm(p_values):
    """Holm's p-values: below a level, all errors together stay below it.

    Formula: the k-th smallest of m, counted from 0, becomes the largest of
    `(m - j) p_j` over j <= k, and 1 at most.

    Args:
        p_values: Dict of name -> p-value.

    Returns:
        Dict of name -> corrected p-value, in the same order.

    Source:
        Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    corrected, largest = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=p_values.get)):
        largest = max(largest, (len(p_values) - rank) * p_values[name])
        corrected[name] = min(largest, 1.0)
    return {name: corrected[name] for name in p_values}


def outcome(difference, corrected_p, level=0.05):
    """`"win"`, `"loss"`, or `"tie"` where the difference may be chance."""
    if corrected_p >= level or difference.mean == 0:
        return "tie"
    return "win" if difference.mean > 0 else "loss"


def mean_ranks(values):
    """Mean rank of each method over data sets, and Friedman's p-value.

    Args:
        values: Dict of method -> one value a data set, higher is better.

    Returns:
        Dict of method -> mean rank, where 1 is the best and equal values share the
        mean of their ranks; and the p-value of no difference between methods, or
        `None` with fewer than three methods or two data sets.

    Source:
        Demšar 2006, Statistical comparisons of classifiers over multiple data sets.
    """
    table = np.array(list(values.values()), float)  # (methods, data sets)
    ranks = stats.rankdata(-table, axis=0).mean(axis=1)
    p = None
    if len(table) > 2 and table.shape[1] > 1 and np.ptp(table, axis=0).any():
        p = float(stats.friedmanchisquare(*table).pvalue)
    return dict(zip(values, map(float, ranks), strict=True)), p
