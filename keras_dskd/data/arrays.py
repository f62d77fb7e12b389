"""Index the rows of arrays of any library."""

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_dskd.internal.types import Nested, Tensor

#: Methods by which arrays that are not dense become so: SciPy's, and TensorFlow's.
_DENSE_BY = ("toarray", "to_tensor")


def sliceable(array: Any) -> Any:
    """Converts tensors and pandas objects to NumPy, so that rows can be indexed.

    Anything else is returned unchanged: arrays on disk are not read.
    """
    check_dense(array)
    if hasattr(array, "to_numpy"):  # A data frame or series of pandas.
        return array.to_numpy()
    return ops.convert_to_numpy(array) if ops.is_tensor(array) else array


def check_dense(array: Any) -> None:
    """Raises `ValueError` for a sparse matrix or a ragged tensor."""
    for method in _DENSE_BY:
        if hasattr(array, method):
            raise ValueError(
                "Expected arrays with one row per sample. Received: "
                f"{type(array).__name__}. Convert it to a dense array first, by "
                f".{method}()."
            )


def is_sparse(array: Any) -> bool:
    """Whether it is a sparse matrix or a ragged tensor."""
    return any(hasattr(array, method) for method in _DENSE_BY)


def row_count(array: Any) -> int | None:
    """The number of rows, or `None` if this is not an array of rows."""
    shape: tuple[Any, ...] = getattr(array, "shape", ())
    return int(shape[0]) if len(shape) else None


def size(array: Tensor) -> int:
    """The number of elements; an axis of unknown length counts as 1."""
    return int(np.prod([length or 1 for length in array.shape], dtype="int64"))


def dense(rows: Any) -> NDArray[Any]:
    """The rows as a NumPy array."""
    return np.asarray(
        rows if isinstance(rows, np.ndarray) else ops.convert_to_numpy(rows)
    )


def evenly_spaced(x: Nested, max_samples: int) -> Nested:
    """At most `max_samples` samples, evenly spaced, as a structure of NumPy arrays.

    Raises:
        ValueError: If `x` is not a structure of arrays of one length, at least two.
    """
    x = keras.tree.map_structure(sliceable, x)
    leaves = keras.tree.flatten(x)
    shapes = [getattr(array, "shape", None) for array in leaves]
    counts = {row_count(array) for array in leaves}
    count = counts.pop() if len(counts) == 1 else None
    if count is None:
        raise ValueError(
            "Expected arrays with one row per sample. Received: "
            f"{[type(array).__name__ for array in leaves]} of shapes {shapes}"
        )
    if count < 2:
        raise ValueError(f"Expected at least 2 samples. Received: {shapes[0]}")
    rows = evenly_spaced_rows(count, max_samples)
    return keras.tree.map_structure(lambda array: dense(array[rows]), x)


def evenly_spaced_rows(count: int, at_most: int) -> NDArray[Any]:
    """Indices of at most `at_most` of `count` rows, from the first to the last."""
    return np.unique(np.linspace(0, count - 1, min(count, at_most)).astype(int))


def check_batch_size(batch_size: object) -> None:
    """Raises `ValueError` unless it is an integer of at least 1."""
    if not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise ValueError(
            f"`batch_size` must be a whole number above 0. Received: {batch_size!r}"
        )
