"""The benchmarks' calibration metrics, against values computed by hand."""

import numpy as np
import pytest
from calibration import expected_calibration_error, negative_log_likelihood

pytestmark = pytest.mark.backend_neutral


def logits(*first):
    """Logits of two classes: `first` is the probability of the first class."""
    p = np.array(first)
    return np.log(np.stack([p, 1 - p], axis=1)) + 3.0


def test_likelihood_by_hand():
    # -(ln 0.8 + ln 0.1) / 2
    value = negative_log_likelihood(logits(0.8, 0.9), np.array([0, 1]))
    assert value == pytest.approx(1.262864, abs=1e-6)


def test_likelihood_of_large_logits_is_finite():
    value = negative_log_likelihood(
        np.array([[1e4, 0.0], [0.0, 1e4]]), np.array([1, 1])
    )
    assert value == 5e3


def test_calibration_error_by_hand():
    # Bins (0.8, 0.867]: 0.82 and 0.86, one right: |0.5 - 0.84| = 0.34 on two samples.
    # Bin (0.533, 0.6]: 0.55 and 0.56, both right: |1 - 0.555| = 0.445 on two.
    # Bin (0.933, 1]: 0.95, right: 0.05 on one.
    given = logits(0.82, 0.86, 0.55, 0.44, 0.95)
    y = np.array([0, 1, 0, 1, 0])
    expected = (2 * 0.34 + 2 * 0.445 + 0.05) / 5
    assert expected_calibration_error(given, y) == pytest.approx(expected, abs=1e-9)


def test_fewer_bins_hide_errors_that_cancel():
    # One bin has 0.6, right, and 0.9, wrong: |0.5 - 0.75|.
    given, y = logits(0.6, 0.9), np.array([0, 1])
    assert expected_calibration_error(given, y, bins=1) == pytest.approx(0.25)
    assert expected_calibration_error(given, y) == pytest.approx((0.4 + 0.9) / 2)


def test_confident_and_right_is_no_error():
    given = np.array([[100.0, 0.0], [0.0, 100.0]])
    assert expected_calibration_error(given, np.array([0, 1])) == pytest.approx(0)


def test_error_of_a_wrong_prediction_is_its_confidence():
    given = np.array([[100.0, 0.0]])
    assert expected_calibration_error(given, np.array([1])) == pytest.approx(1)
