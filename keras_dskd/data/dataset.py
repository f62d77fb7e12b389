"""A data set of arrays, in memory or on disk, shuffled by rows."""

from collections.abc import Iterator
from typing import Any, TypeAlias

import keras
import numpy as np
from numpy.typing import NDArray

from keras_dskd.data.arrays import check_batch_size, dense, row_count, sliceable
from keras_dskd.data.epochs import EpochDataset
from keras_dskd.data.mapped import from_location, to_location
from keras_dskd.internal.types import Nested


class ArrayDataset(EpochDataset):
    """Batches of arrays, read by rows: the arrays may be larger than memory.

    Each batch reads its rows from each array. Only these rows are in memory if the
    arrays are memory-mapped, such as the features that `Distiller.cache_teacher` wrote
    to a `path`, or `numpy.load(..., mmap_mode="r")`.

    Args:
        x: The input of `fit`, such as `{"student": ..., "teacher_features": ...}`, with
            or without masks: any structure of dense arrays of `n` rows.
        y: Labels, any structure of arrays of `n` rows, or `None`.
        sample_weight: Weights of the samples, or `None`.
        batch_size: Rows per batch. The last batch may be smaller.
        shuffle: Whether to draw a new order for each epoch.
        seed: Integer seed of the orders. Defaults to one drawn from NumPy's global
            generator, which `keras.utils.set_random_seed` seeds.
        drop_remainder: Whether to drop the last batch of an epoch if it is smaller.
            Batch statistics need full batches.
        **kwargs: `workers`, `use_multiprocessing` and `max_queue_size` of
            `keras.utils.PyDataset`. Several workers (threads) hide a slow disk. But
            Keras then carries batches that were read ahead into the next epoch, so a
            shuffled epoch may contain some rows twice and miss others.

    Attributes:
        epoch: How many times all batches were read. The seed and this number determine
            the order.

    Pass `shuffle=False` to `fit`: otherwise Keras also shuffles the batches, without
    this seed.

    A new data set starts at epoch 0. When training resumes later (`initial_epoch`,
    `BackupAndRestore`), set `data.epoch` with a callback:
    `keras.callbacks.LambdaCallback(lambda epoch, logs: setattr(data, "epoch", epoch))`.

    With `steps_per_epoch` an order lasts until all its batches were read, over several
    of Keras's epochs. With `use_multiprocessing` the data set cannot know what was
    read: pass `shuffle=False`, or leave out `steps_per_epoch`.

    Raises:
        ValueError: If arrays have different numbers of rows, an array is sparse or
            ragged, or `drop_remainder` leaves no batch.

    Example:
    ```python
    features = distiller.cache_teacher(optical, path="cache")
    data = keras_dskd.ArrayDataset(
        {"student": radar, "teacher_features": features}, labels, batch_size=64
    )
    distiller.fit(data, epochs=20, shuffle=False)
    ```
    """

    def __init__(
        self,
        x: Nested,
        y: Nested = None,
        sample_weight: Nested = None,
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        drop_remainder: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, **kwargs)
        check_batch_size(batch_size)
        given = {"x": x, "y": y, "sample_weight": sample_weight}
        if y is None and sample_weight is not None:
            raise ValueError("`sample_weight` needs `y`. Received: y=None")
        self.arrays = {
            # tf.data has no lists.
            name: keras.tree.lists_to_tuples(keras.tree.map_structure(sliceable, part))
            for name, part in given.items()
            if part is not None
        }
        self.samples = _common_length(self.arrays)
        self.batch_size = int(batch_size)
        if drop_remainder and self.samples < self.batch_size:
            raise ValueError(
                f"No batch is left of {self.samples} rows. Received: "
                f"batch_size={self.batch_size}, drop_remainder=True"
            )
        self.drop_remainder = drop_remainder
        self.shuffle = shuffle
        # The order, and the epoch that it was drawn for.
        self._drawn: tuple[int | None, NDArray[Any]] = None, np.empty(0, int)

    def __getstate__(self) -> dict[str, Any]:
        # Worker processes open the files themselves: copies would fill the memory.
        arrays = keras.tree.map_structure(to_location, self.arrays)
        return {**self.__dict__, "arrays": arrays, "_drawn": (None, None)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.arrays = keras.tree.map_structure(from_location, self.arrays)

    def __len__(self) -> int:
        batches, rest = divmod(self.samples, self.batch_size)
        return batches + (rest > 0 and not self.drop_remainder)

    def _batch(self, index: int) -> tuple[Nested, ...]:
        first = index * self.batch_size
        rows = self._order()[first : first + self.batch_size]
        # Read in the order of the file; `h5py` accepts no other order.
        rows, positions = np.unique(rows, return_inverse=True)
        batch = keras.tree.map_structure(
            lambda array: dense(array[rows])[positions], self.arrays
        )
        return tuple(batch[name] for name in ("x", "y", "sample_weight")[: len(batch)])

    def _order(self) -> NDArray[Any]:
        """The row numbers of the epoch's batches, one batch after the other."""
        epoch, order = self._drawn
        if epoch != self.epoch:
            epoch = self.epoch
            order = self._draw(np.random.default_rng([self.seed, epoch]))
            self._drawn = epoch, order
        return order

    def _draw(self, rng: np.random.Generator) -> NDArray[Any]:
        """Draws the order of an epoch."""
        rows = np.arange(self.samples)
        return rng.permutation(rows) if self.shuffle else rows


CachedDataset: TypeAlias = ArrayDataset
"""An earlier name of `ArrayDataset`."""


def _common_length(arrays: dict[str, Nested]) -> int:
    lengths: dict[str, list[int]] = {}
    for name, part in _named_parts(arrays):
        counts = {row_count(array) for array in keras.tree.flatten(part)}
        lengths[name] = sorted(count for count in counts if count is not None)
        if None in counts:
            raise ValueError(
                f"`{name}` must be arrays with one row per sample, such as "
                "`numpy.asarray(...)` of a list. Received: "
                f"{type(keras.tree.flatten(part)[0]).__name__}"
            )
    if len(set().union(*lengths.values())) != 1:
        raise ValueError(
            f"All arrays must have the same number of rows. Received: {lengths}"
        )
    return next(iter(lengths.values()))[0]


def _named_parts(arrays: dict[str, Nested]) -> Iterator[tuple[str, Nested]]:
    """The arrays by the names that errors give them."""
    for name, part in arrays.items():
        if name == "x" and isinstance(part, dict):
            yield from ((f'x["{key}"]', item) for key, item in part.items())
        else:
            yield name, part
