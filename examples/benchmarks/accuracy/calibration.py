"""Measure how well probabilities are calibrated, from logits and labels, in NumPy."""

import numpy as np


def log_probabilities(logits):
    """Logarithms of the softmax of logits `(n, classes)`, in float64."""
    logits = np.asarray(logits, "float64")
    logits = logits - logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def negative_log_likelihood(logits, y):
    """Mean of `-log p` of the true class, natural logarithm.

    Args:
        logits: `(n, classes)`.
        y: `(n,)` class indices.
    """
    return float(-log_probabilities(logits)[np.arange(len(y)), y].mean())


def expected_calibration_error(logits, y, bins=15):
    """Mean difference between the confidence of predictions and their accuracy.

    Formula: over bins of equal width of the largest probability,

    ```
    Σ_bins |samples in it| / n · |share right - mean largest probability|
    ```

    Args:
        logits: `(n, classes)`.
        y: `(n,)` class indices.
        bins: Number of bins of [0, 1]; an edge belongs to the bin below it.

    Source:
        Guo et al. 2017 (arXiv 1706.04599), equation 3, with its 15 bins.
    """
    probabilities = np.exp(log_probabilities(logits))
    confidence = probabilities.max(axis=1)
    excess = (probabilities.argmax(axis=1) == y) - confidence
    edges = np.linspace(0, 1, bins + 1)[1:-1]
    # Sums of (right - confidence) in each bin.
    sums = np.bincount(np.digitize(confidence, edges, right=True), excess)
    return float(np.abs(sums).sum() / len(y))
