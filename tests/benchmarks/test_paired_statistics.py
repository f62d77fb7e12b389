"""The benchmarks' paired statistics, against SciPy and values computed by hand."""

import numpy as np
import pytest

stats = pytest.importorskip("scipy.stats", reason="the statistics need scipy")
paired_statistics = pytest.importorskip("paired_statistics")
Difference = paired_statistics.Difference
holm = paired_statistics.holm
mean_ranks = paired_statistics.mean_ranks
outcome = paired_statistics.outcome
paired_difference = paired_statistics.paired_difference

pytestmark = pytest.mark.backend_neutral


def samples(count=7):
    rng = np.random.default_rng(0)
    others = rng.normal(70, 3, count)
    return others + rng.normal(0.5, 1, count), others


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_interval_and_p_value_match_the_paired_t_test_of_scipy(confidence):
    values, others = samples()
    result = paired_difference(values, others, confidence)
    expected = stats.ttest_rel(values, others)
    interval = expected.confidence_interval(confidence)
    assert result.mean == pytest.approx((values - others).mean())
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high))
    assert result.p == pytest.approx(expected.pvalue)
    assert result.pairs == 7


def test_interval_by_hand():
    # Differences 1 and 3: mean 2, standard error 1; t(0.975, 1) = tan(0.475 pi).
    result = paired_difference([2.0, 5.0], [1.0, 2.0])
    half = np.tan(0.475 * np.pi)
    assert (result.low, result.high) == pytest.approx((2 - half, 2 + half))


def test_effects_shared_by_a_pair_cancel():
    values, others = samples()
    shared = np.linspace(-20, 20, len(values))
    result, expected = (
        paired_difference(values + add, others + add) for add in (shared, 0)
    )
    assert result.p == pytest.approx(expected.p)


def test_one_pair_has_no_interval():
    assert paired_difference([3.0], [1.0]) == Difference(2.0, None, None, 1.0, 1)


def test_equal_differences_have_no_interval():
    # Accuracies on few samples can differ like this. In floating point the three
    # differences are not quite equal.
    values, others = np.array([0.3, 0.6, 0.9]) + 0.1, np.array([0.3, 0.6, 0.9])
    result = paired_difference(values, others)
    assert (result.low, result.high, result.p) == (None, None, 1.0)
    assert result.mean == pytest.approx(0.1)


def test_identical_values_have_a_difference_of_exactly_0():
    values, _ = samples()
    assert paired_difference(values, values) == Difference(0.0, 0.0, 0.0, 1.0, 7)


@pytest.mark.parametrize("others", [[], [1.0], [[1.0, 2.0]]])
def test_unpaired_values_raise(others):
    with pytest.raises(ValueError, match="one value a pair"):
        paired_difference([1.0, 2.0], others)
    with pytest.raises(ValueError, match="one value a pair"):
        paired_difference([], [])


def test_holm_by_hand():
    # In order: 4 * 0.005 = 0.02; 3 * 0.01 = 0.03; 2 * 0.03 = 0.06;
    # 1 * 0.04 = 0.04, raised to the 0.06 before it.
    given = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}
    expected = {"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}
    result = holm(given)
    assert result == pytest.approx(expected)
    assert list(result) == list(given)


def test_holm_stays_below_1_and_keeps_a_single_p_value():
    assert holm({"a": 0.4, "b": 0.9, "c": 1.0}) == {"a": 1.0, "b": 1.0, "c": 1.0}
    assert holm({"a": 0.04}) == {"a": 0.04}
    assert holm({}) == {}


@pytest.mark.parametrize(
    ("mean", "p", "expected"),
    [
        (1.0, 0.049, "win"),
        (-1.0, 0.049, "loss"),
        (1.0, 0.05, "tie"),
        (-1.0, 1.0, "tie"),
    ],
)
def test_win_needs_a_p_value_below_0_05(mean, p, expected):
    assert outcome(Difference(mean, None, None, p, 5), p) == expected


def test_mean_ranks_by_hand():
    # Order on the first data set: a, b, c. On the second: c, then a tie of a and b.
    values = {"a": [3.0, 1.0], "b": [2.0, 1.0], "c": [1.0, 2.0]}
    ranks, _ = mean_ranks(values)
    assert ranks == {"a": 1.75, "b": 2.25, "c": 2.0}


def test_friedman_p_value_matches_scipy_and_needs_3_methods_on_2_data_sets():
    table = np.random.default_rng(0).normal(size=(4, 6))
    _, p = mean_ranks(dict(zip("abcd", table, strict=True)))
    assert p == pytest.approx(stats.friedmanchisquare(*table).pvalue)
    assert mean_ranks({"a": [1.0, 2.0], "b": [2.0, 1.0]})[1] is None
    assert mean_ranks({"a": [1.0], "b": [2.0], "c": [3.0]})[1] is None
