"""The formulas beside their references, and the tolerance between them."""

import keras
import numpy as np
import reference
from fuzz import arrays
from hypothesis import strategies as st

from keras_dskd import ops

# float32 rounds a number by 6e-8. Standardized deviations of n < 10 rows are sums of n
# such roundings, in units of the largest deviation, which is at most sqrt(n) standard
# deviations. Correlations and mean squares of them are of order 1.
TOLERANCE = {"rtol": 1e-4, "atol": 2e-5}

SEEDS = st.integers(0, 2**32 - 1)
COUNTS = st.sampled_from([2, 5])
WIDTHS = st.sampled_from([1, 4])
FINITE = st.sampled_from(arrays.FINITE)
DTYPES = st.sampled_from(arrays.REAL)
FORMS = st.sampled_from(arrays.FORMS)
SIZES = st.lists(st.sampled_from([0, 1, 2, 3]), max_size=6).map(tuple)

#: Formulas of one matrix: name -> (ours, reference, bounds of the value).
OF_ROWS = {
    "standardize": (ops.standardize, reference.standardize, (-8, 8)),
    "normalize": (ops.normalize, reference.normalize, (-1, 1)),
    "channel_correlation": (
        ops.channel_correlation,
        reference.channel_correlation,
        (-1, 1),
    ),
    "off_diagonal_energy": (
        ops.off_diagonal_energy,
        reference.off_diagonal_energy,
        (0, 1),
    ),
    "spatial_uniformity": (
        ops.spatial_uniformity,
        reference.spatial_uniformity,
        (-8, 0),
    ),
    "effective_rank": (ops.effective_rank, reference.effective_rank, (0, 8)),
    "centered_effective_rank": (
        ops.centered_effective_rank,
        reference.centered_effective_rank,
        (0, 8),
    ),
}
#: Formulas of two matrices of the same samples.
OF_PAIRS = {
    "cross_correlation": (ops.cross_correlation, reference.cross_correlation, (-1, 1)),
    "channel_alignment": (ops.channel_alignment, reference.channel_alignment, (0, 4)),
    "cross_off_diagonal_energy": (
        ops.cross_off_diagonal_energy,
        reference.cross_off_diagonal_energy,
        (0, 5),
    ),
}
SCALARS = [
    "off_diagonal_energy",
    "spatial_uniformity",
    "effective_rank",
    "centered_effective_rank",
    "channel_alignment",
    "cross_off_diagonal_energy",
    "soft_targets",
]


def numpy(tensor):
    assert keras.backend.standardize_dtype(tensor.dtype) == "float32"
    return np.asarray(keras.ops.convert_to_numpy(tensor), "float64")


def assert_right(actual, formula, *inputs, bounds=(-np.inf, np.inf)):
    """Asserts the reference's value; float32 may flush subnormal numbers to 0."""
    actual = numpy(actual)
    low, high = bounds
    assert np.all(actual >= low - 1e-4) and np.all(actual <= high + 1e-4), actual
    smallest = np.finfo("float32").smallest_normal
    flushed = [np.where(np.abs(x) < smallest, 0.0, x) for x in inputs]
    expected = formula(*inputs)
    assert actual.shape == np.shape(expected)
    if not np.allclose(actual, formula(*flushed), **TOLERANCE):
        np.testing.assert_allclose(actual, expected, **TOLERANCE)
