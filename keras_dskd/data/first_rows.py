"""The first rows of training data, read without using them up."""

import itertools
from collections.abc import Iterator
from typing import Any

import keras

from keras_dskd.data.arrays import dense, is_sparse, row_count, sliceable
from keras_dskd.internal.types import Nested

_ROWS = 16


def first_rows(x: Any) -> tuple[Nested, Any]:
    """The input of a few samples, as NumPy arrays.

    Args:
        x: What `fit` takes as `x`: arrays, a `PyDataset`, a `tf.data` data set, a torch
            `DataLoader` or a generator.

    Returns:
        `(rows, x)`: at most 16 rows in the structure of the input, `None` if they
        cannot be read without side effects; and `x` to train on. For a generator this
        is a new one, which begins with the batch that was read.
    """
    if isinstance(x, keras.utils.PyDataset):
        batch = x[0]
    elif hasattr(x, "collate_fn") and hasattr(x, "dataset"):
        # A `DataLoader`. Its iterator would draw from torch's random state.
        if not reads_by_index(x):
            return None, x
        samples = range(min(_ROWS, len(x.dataset)))
        batch = x.collate_fn([x.dataset[index] for index in samples])
    elif hasattr(x, "element_spec") and hasattr(x, "take"):
        batch = next(iter(x.take(1)), None)
    elif isinstance(x, Iterator):
        batch = next(x, None)
        x = itertools.chain([] if batch is None else [batch], x)
    else:
        return _rows(x), x
    if batch is None:
        return None, x
    batch = tuple(batch) if isinstance(batch, list) else batch
    return _rows(keras.utils.unpack_x_y_sample_weight(batch)[0]), x


def reads_by_index(loader: Any) -> bool:
    """Whether a `DataLoader` reads its rows by index: not from an `IterableDataset`."""
    dataset = loader.dataset
    return hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")


def _rows(x: Nested) -> Nested:
    arrays = [array for array in keras.tree.flatten(x) if array is not None]
    if not arrays or any(is_sparse(a) or row_count(a) is None for a in arrays):
        return None
    return keras.tree.map_structure(
        lambda array: None if array is None else dense(sliceable(array[:_ROWS])), x
    )
