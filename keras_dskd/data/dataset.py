"""Batches of arrays that need not fit into memory, in an order of their own."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_dskd.data.arrays import check_batch_size, dense, row_count, sliceable
from keras_dskd.data.mapped import from_place, place_of
from keras_dskd.internal.types import Nested


class CachedDataset(keras.utils.PyDataset):
    """What `fit` takes as arrays, read by rows: a cache may be larger than memory.

    Each batch reads its own rows of each array, all of the same samples, whatever the
    order. Only these rows are in memory, where arrays are memory-mapped, as those of
    `Distiller.cache_teacher` with a `path` are, and `numpy.load(..., mmap_mode="r")`.

    Args:
        x: The input of `fit`, such as `{"student": ..., "teacher_features": ...}`, with
            a `"teacher_mask"` if need be: any structure of arrays of `n` rows.
        y: Labels, any structure of arrays, or `None`.
        sample_weight: Weights of the samples, or `None`.
        batch_size: Rows of a batch. The last one may be smaller.
        shuffle: Whether each epoch has an order of its own.
        seed: Makes the orders those of every run with this seed. Defaults to one drawn
            from NumPy's global generator, which `keras.utils.set_random_seed` sets.
        drop_remainder: Whether to leave out the last batch of an epoch if it is
            smaller, where statistics want full batches.
        **kwargs: `workers`, `use_multiprocessing` and `max_queue_size` of
            `keras.utils.PyDataset`. Several workers, as threads, hide a slow disk; but
            Keras then carries batches that were read ahead into the next epoch, so
            that a shuffled epoch may see some rows twice and miss others.

    Attributes:
        epoch: How often all batches were read so far; it and the seed make the order.

    A data set that is made anew begins with epoch 0, and knows nothing of a training
    that goes on in its midst, by `initial_epoch` or `BackupAndRestore`. A callback
    tells it:
    `keras.callbacks.LambdaCallback(lambda epoch, logs: setattr(data, "epoch", epoch))`.
    With `steps_per_epoch` an epoch of Keras's may be a part of this one, and an order
    lasts until all rows were seen; but with `use_multiprocessing`, where nobody here
    knows what was read, pass `shuffle=False` or leave out `steps_per_epoch`.

    Pass `shuffle=False` to `fit`, or else Keras changes the order of the batches too,
    without this seed.

    Raises:
        ValueError: If arrays have different numbers of rows, or no batch is left.

    Example:
    ```python
    features = distiller.cache_teacher(optical, path="cache")
    data = keras_dskd.CachedDataset(
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
        super().__init__(**kwargs)
        check_batch_size(batch_size)
        given = {"x": x, "y": y, "sample_weight": sample_weight}
        if y is None and sample_weight is not None:
            raise ValueError("`sample_weight` needs `y`. Received: y=None")
        self.arrays = {
            # tf.data has no lists.
            what: keras.tree.lists_to_tuples(keras.tree.map_structure(sliceable, part))
            for what, part in given.items()
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
        self.seed = np.random.randint(2**31) if seed is None else seed
        self.epoch = 0

    @property
    def epoch(self) -> int:
        """How often all batches were read. Assign it to go on from there."""
        return self._epoch

    @epoch.setter
    def epoch(self, number: int) -> None:
        self._epoch = number
        self._order = self._order_of(number)
        self._read: set[int] = set()

    def _order_of(self, epoch: int) -> NDArray[Any] | None:
        if not self.shuffle:
            return None
        return np.random.default_rng([self.seed, epoch]).permutation(self.samples)

    def __getstate__(self) -> dict[str, Any]:
        # Worker processes open the files: a copy of a cache would fill their memory.
        arrays = keras.tree.map_structure(place_of, self.arrays)
        return {**self.__dict__, "arrays": arrays, "_order": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.arrays = keras.tree.map_structure(from_place, self.arrays)
        self._order = self._order_of(self.epoch)

    def __len__(self) -> int:
        batches, rest = divmod(self.samples, self.batch_size)
        return batches + (rest > 0 and not self.drop_remainder)

    def __getitem__(self, index: int) -> tuple[Nested, ...]:
        self._read.add(index)
        first = index * self.batch_size
        rows = np.arange(first, min(first + self.batch_size, self.samples))
        if self._order is not None:
            rows = self._order[rows]
        # In the order of the file, which is the order that `h5py` takes as well.
        rows, places = np.unique(rows, return_inverse=True)
        batch = keras.tree.map_structure(
            lambda array: dense(array[rows])[places], self.arrays
        )
        return tuple(batch[part] for part in ("x", "y", "sample_weight")[: len(batch)])

    def on_epoch_end(self) -> None:
        """Goes on to the next epoch's order, if all batches of this one were read."""
        # With `steps_per_epoch` Keras stops in the midst of the batches, and goes on.
        if self.use_multiprocessing or len(self._read) == len(self):
            self.epoch += 1


def _common_length(arrays: dict[str, Nested]) -> int:
    lengths = {}
    for what, part in _parts(arrays):
        leaves = keras.tree.flatten(part)
        counts = [row_count(array) for array in leaves]
        if None in counts:
            raise ValueError(
                f"`{what}` must be arrays of one row a sample, such as "
                f"`numpy.asarray(...)` of a list. Received: {type(leaves[0]).__name__}"
            )
        lengths[what] = sorted({count for count in counts if count is not None})
    if len(set().union(*lengths.values())) != 1:
        raise ValueError(
            f"All arrays must have the same number of rows. Received: {lengths}"
        )
    return next(iter(lengths.values()))[0]


def _parts(arrays: dict[str, Nested]) -> Iterator[tuple[str, Nested]]:
    """The arrays by what an error should call them."""
    for what, part in arrays.items():
        if what == "x" and isinstance(part, dict):
            yield from ((f'x["{key}"]', item) for key, item in part.items())
        else:
            yield what, part
