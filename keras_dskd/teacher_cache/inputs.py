"""The teacher's inputs, read by rows. Their number is known before the run."""

import concurrent.futures
import hashlib
from typing import Any, Protocol

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_dskd.data.arrays import check_dense, dense, row_count
from keras_dskd.data.pairs import teacher_input
from keras_dskd.internal.types import Config, Nested
from keras_dskd.teacher_cache.manifest import describe

_DIGEST_ROWS = 16


class Inputs(Protocol):
    """The inputs of a data set; `batch_size` is `None` if the user chooses it."""

    @property
    def samples(self) -> int: ...
    @property
    def batch_size(self) -> int | None: ...
    def rows(self, start: int, stop: int) -> Nested: ...


def by_rows(x: Nested) -> Inputs | None:
    """`x` as `ArrayInputs` or `BatchedInputs`; `None` if its length is unknown."""
    if isinstance(x, keras.utils.PyDataset):
        try:
            return None if x.num_batches is None else BatchedInputs(x)
        except NotImplementedError:  # A data set without a length.
            return None
    arrays = keras.tree.flatten(x)
    for array in arrays:
        check_dense(array)
    has_rows = all(
        hasattr(array, "__getitem__") and row_count(array) is not None
        for array in arrays
    )
    return ArrayInputs(x) if arrays and has_rows else None


class ArrayInputs:
    """Any structure of arrays: NumPy's, memory-mapped ones, tensors, data frames."""

    batch_size = None

    def __init__(self, x: Nested) -> None:
        self.x = x
        lengths = sorted({int(array.shape[0]) for array in keras.tree.flatten(x)})
        if len(lengths) > 1 or not lengths[0]:
            raise ValueError(
                "The teacher's inputs must be arrays of the same number of samples, at "
                f"least one. Received: {lengths} samples."
            )
        self.samples = lengths[0]

    def rows(self, start: int, stop: int) -> Nested:
        """The rows from `start` up to `stop`."""
        return keras.tree.map_structure(lambda array: array[start:stop], self.x)


class BatchedInputs:
    """A `PyDataset` of the teacher's inputs, or of pairs, in its order.

    All batches but the last must have the same size: the first and the last batch are
    read to count the rows. The data set's `workers` read as threads.
    """

    def __init__(self, dataset: keras.utils.PyDataset) -> None:
        self.dataset = dataset
        count = dataset.num_batches
        if not count:
            raise ValueError("The teacher's input is a PyDataset without batches.")
        first, last = self._read(0), self._read(count - 1)
        self._row_shapes = _row_shapes(first)
        self.batch_size = _length(first)
        self.samples = self.batch_size * (count - 1) + _length(last)
        self._check(count - 1, last)

    def rows(self, start: int, stop: int) -> Nested:
        """The rows from `start` up to `stop`."""
        first = start // self.batch_size
        numbers = range(first, (stop - 1) // self.batch_size + 1)
        workers = max(1, self.dataset.workers)
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            batches = list(pool.map(self._read, numbers))
        for number, batch in zip(numbers, batches, strict=True):
            self._check(number, batch)
        offset = first * self.batch_size
        return keras.tree.map_structure(
            lambda *parts: np.concatenate(parts)[start - offset : stop - offset],
            *batches,
        )

    def _read(self, number: int) -> Nested:
        batch = self.dataset[number]
        batch = tuple(batch) if isinstance(batch, list) else batch
        x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        return keras.tree.map_structure(ops.convert_to_numpy, teacher_input(x))

    def _check(self, number: int, batch: Nested) -> None:
        expected = min(self.batch_size, self.samples - number * self.batch_size)
        if _length(batch) != expected or _row_shapes(batch) != self._row_shapes:
            raise ValueError(
                f"Batch {number} of the PyDataset has the shapes "
                f"{[array.shape for array in keras.tree.flatten(batch)]}. Expected: "
                f"{expected} rows of {self._row_shapes}. A cache on disk needs batches "
                "of one size (the last one may be smaller). Or leave out `path`."
            )


def identity(inputs: Inputs) -> Config:
    """Identifies a data set by its structure, shapes, dtypes and a digest.

    The digest is SHA-256 of 16 rows, evenly spaced from the first to the last. It
    differs for data in another order or of another scale, but may not notice a change
    of a few rows.
    """
    count = min(_DIGEST_ROWS, inputs.samples)
    digest = hashlib.sha256()
    for index in np.linspace(0, inputs.samples - 1, count).round().astype(int).tolist():
        row = keras.tree.map_structure(dense, inputs.rows(index, index + 1))
        for array in keras.tree.flatten(row):
            if array.dtype == object:
                raise ValueError(
                    "A cache on disk needs arrays of numbers or strings. Received: an "
                    "array of Python objects. Convert strings by .astype(str)."
                )
            digest.update(np.ascontiguousarray(array).tobytes())

    def described(array: NDArray[Any]) -> Config:
        shape = [inputs.samples, *array.shape[1:]]
        return {"shape": shape, "dtype": array.dtype.name}

    return {
        "samples": inputs.samples,
        "inputs": describe(row, described),
        "digest": digest.hexdigest(),
    }


def _length(batch: Nested) -> int:
    return len(keras.tree.flatten(batch)[0])


def _row_shapes(batch: Nested) -> list[tuple[int, ...]]:
    return [array.shape[1:] for array in keras.tree.flatten(batch)]
