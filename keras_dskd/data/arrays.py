"""Arrays of any library, read by rows."""

from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_dskd.internal.types import Tensor


def sliceable(array: Any) -> Any:
    """What takes NumPy's indices: tensors and what pandas has become NumPy arrays.

    Others stay as they are, so that what is on disk is not read.
    """
    if hasattr(array, "to_numpy"):  # A data frame or series of pandas.
        return array.to_numpy()
    return ops.convert_to_numpy(array) if ops.is_tensor(array) else array


def row_count(array: Any) -> int | None:
    """The number of rows, or `None` where it is no array of rows."""
    shape: tuple[Any, ...] = getattr(array, "shape", ())
    return int(shape[0]) if len(shape) else None  # A sparse matrix has no `len`.


def number_count(array: Tensor) -> int:
    """The number of numbers, where an axis of no known length counts as one."""
    return int(np.prod([length or 1 for length in array.shape], dtype="int64"))


def dense(rows: Any) -> NDArray[Any]:
    """Some rows as a NumPy array, also those of a sparse matrix of SciPy."""
    if hasattr(rows, "toarray"):
        rows = rows.toarray()
    return np.asarray(
        rows if isinstance(rows, np.ndarray) else ops.convert_to_numpy(rows)
    )


def check_batch_size(batch_size: object) -> None:
    """Raises `ValueError` unless it is a whole number above 0."""
    if not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise ValueError(
            f"`batch_size` must be a whole number above 0. Received: {batch_size!r}"
        )
