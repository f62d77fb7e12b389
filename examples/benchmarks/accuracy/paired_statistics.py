"""Differences between methods that were run with the same seeds."""

from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Difference:
    """A mean difference and its statistics.

    Attributes:
        mean: The mean.
        low: Lower end of the interval. `None` if there is no interval: with one pair,
            or if all differences are the same number other than 0. In that case, the
            spread is not 0, but finer than the resolution of the values.
        high: Upper end of the interval, or `None`.
        p: Two-sided p-value against no difference; 1 if there is no interval.
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
        values: One number per pair.
        others: The paired numbers to subtract.
        confidence: Confidence level of the interval.

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
    # Rounding makes equal differences slightly unequal.
    if pairs == 1 or np.ptp(differences) <= 1e-12 * np.abs(differences).max():
        bound = 0.0 if pairs > 1 and mean == 0 else None
        return Difference(mean, bound, bound, 1.0, pairs)
    half = stats.sem(differences) * stats.t.ppf((1 + confidence) / 2, pairs - 1)
    p = stats.ttest_1samp(differences, 0.0).pvalue
    return Difference(mean, float(mean - half), float(mean + half), float(p), pairs)


def holm(p_values):
    """Holm-corrected p-values, which limit the probability of any false positive.

    Formula: the k-th smallest of m p-values, counted from 0, becomes the largest of
    `(m - j) p_j` over j <= k, and at most 1.

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
    """`"win"`, `"loss"`, or `"tie"` if the difference may be chance."""
    if corrected_p >= level or difference.mean == 0:
        return "tie"
    return "win" if difference.mean > 0 else "loss"


def mean_ranks(values):
    """Mean rank of each method over data sets, and Friedman's p-value.

    Args:
        values: Dict of method -> one value per data set, higher is better.

    Returns:
        Dict of method -> mean rank, and the p-value of no difference between methods.
        Rank 1 is the best, and equal values share the mean of their ranks. The p-value
        is `None` with fewer than three methods or fewer than two data sets.

    Source:
        Demšar 2006, Statistical comparisons of classifiers over multiple data sets.
    """
    table = np.array(list(values.values()), float)  # (methods, data sets)
    ranks = stats.rankdata(-table, axis=0).mean(axis=1)
    p = None
    if len(table) > 2 and table.shape[1] > 1 and np.ptp(table, axis=0).any():
        p = float(stats.friedmanchisquare(*table).pvalue)
    return dict(zip(values, map(float, ranks), strict=True)), p
