"""Some rows of a data set, as arrays."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from keras_dskd.data.arrays import dense, evenly_spaced_rows, row_count
from keras_dskd.data.first_rows import reads_by_index
from keras_dskd.internal.types import Nested


def is_data_set(x: Any) -> bool:
    """Whether `x` yields batches: a data set, a `DataLoader` or a generator."""
    is_array = isinstance(x, (dict, list, tuple)) or hasattr(x, "shape")
    return isinstance(x, (keras.utils.PyDataset, Iterable)) and not is_array


def some_rows(data: Any, at_most: int) -> Nested:
    """The inputs of at most `at_most` samples of a data set, as NumPy arrays.

    A `PyDataset` and a torch `DataLoader` over a data set with a length are read at
    evenly spaced places. Of other data sets the first rows are read.

    Args:
        data: A `PyDataset`, a `tf.data` data set, a torch `DataLoader`, or another
            object that yields batches each time it is iterated.
        at_most: The number of rows.

    Raises:
        ValueError: If it is a generator, which reading would use up, or it is empty.
    """
    if isinstance(data, Iterator):
        raise ValueError(
            "Reading a generator would use up its batches. Pass arrays, or a data set "
            f"that can be read again. Received: {type(data).__name__}"
        )
    read, count = [], 0
    for batch in _batches(data, at_most):
        batch = tuple(batch) if isinstance(batch, list) else batch
        x = keras.utils.unpack_x_y_sample_weight(batch)[0]
        read.append(keras.tree.map_structure(dense, x))
        count += row_count(keras.tree.flatten(read[-1])[0]) or 0
        if count >= at_most:
            break
    if not read:
        raise ValueError("The data set is empty.")
    return keras.tree.map_structure(
        lambda *arrays: np.concatenate(arrays)[:at_most], *read
    )


def _batches(data: Any, at_most: int) -> Iterable[Any]:
    if isinstance(data, keras.utils.PyDataset):
        batches = data.num_batches
        if batches is None or math.isinf(batches):
            return map(data.__getitem__, range(at_most))
        rows = row_count(_first_array(data[0])) or 1 if batches else 1
        wanted = evenly_spaced_rows(batches, math.ceil(at_most / rows))
        return map(data.__getitem__, wanted.tolist())
    if hasattr(data, "collate_fn") and reads_by_index(data):
        # Iterating a `DataLoader` would draw from torch's random state.
        wanted = evenly_spaced_rows(len(data.dataset), at_most).tolist()
        return iter([data.collate_fn([data.dataset[index] for index in wanted])])
    return data


def _first_array(batch: Any) -> Any:
    batch = tuple(batch) if isinstance(batch, list) else batch
    return keras.tree.flatten(keras.utils.unpack_x_y_sample_weight(batch)[0])[0]
