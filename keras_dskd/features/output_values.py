"""What a batch of outputs shows: probabilities, or something that cannot be."""

import numpy as np
from numpy.typing import NDArray


def looks_like_probabilities(values: NDArray[np.floating], axis: int = -1) -> bool:
    """Whether values can only come from a softmax over `axis`.

    They are between 0 and 1 and sum to 1. Logits that do so in every row by chance are
    out of the question.

    Args:
        values: Array of rank 2 or more.
        axis: Axis of the classes.
    """
    if values.ndim < 2 or not values.size or values.shape[axis] < 2:
        return False
    sums = values.astype("float32").sum(axis)
    return is_within_0_and_1(values) and bool(
        np.allclose(sums, 1.0, atol=_tolerance(values))
    )


def is_within_0_and_1(values: NDArray[np.floating]) -> bool:
    """Whether all values can be probabilities."""
    margin = _tolerance(values)
    return bool(np.all(values >= -margin) and np.all(values <= 1 + margin))


def _tolerance(values: NDArray[np.floating]) -> float:
    # Half precision rounds each of up to some hundred classes.
    return 2e-3 if values.dtype.itemsize >= 4 else 2e-2
