"""What the data sets share: they count epochs, and draw by seed and epoch."""

from typing import Any

import keras
import numpy as np

from keras_dskd.internal.types import Nested


class EpochDataset(keras.utils.PyDataset):
    """Counts epochs: `seed` and `epoch` determine all random choices.

    Args:
        seed: Seed, or `None` to draw one from NumPy's global generator.
        **kwargs: `workers`, `use_multiprocessing` and `max_queue_size` of
            `keras.utils.PyDataset`.
    """

    def __init__(self, seed: int | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = np.random.randint(2**31) if seed is None else seed
        self._epoch = 0
        self._read: set[int] = set()

    def _batch(self, index: int) -> tuple[Nested, ...]:
        """The batch of this number in this epoch."""
        raise NotImplementedError

    @property
    def epoch(self) -> int:
        """How many times all batches were read. Assign it to resume from there."""
        return self._epoch

    @epoch.setter
    def epoch(self, number: int) -> None:
        self._begin(number)

    def _begin(self, epoch: int) -> None:
        self._epoch = epoch
        self._read = set()

    def __getitem__(self, index: int) -> tuple[Nested, ...]:
        self._read.add(index)
        return self._batch(index)

    def on_epoch_end(self) -> None:
        """Begins the next epoch if all batches of this one were read."""
        # Keras calls this before all batches were read, too: after `steps_per_epoch`,
        # and before the first epoch. Worker processes do not report what they read.
        if self.use_multiprocessing or len(self._read) == self.num_batches:
            self.epoch += 1


class TransformedDataset(EpochDataset):
    """Changes each batch of another data set at random, and follows its epochs.

    Args:
        data: The `keras.utils.PyDataset`.
        seed: As in `EpochDataset`.
        **kwargs: As in `EpochDataset`.
    """

    def __init__(
        self, data: keras.utils.PyDataset, seed: int | None, **kwargs: Any
    ) -> None:
        if not isinstance(data, keras.utils.PyDataset):
            raise ValueError(
                "`data` must be a keras.utils.PyDataset. Received: "
                f"{type(data).__name__}. Arrays become one by "
                "keras_dskd.ArrayDataset(x, y, batch_size=...)."
            )
        super().__init__(seed, **kwargs)
        self.data = data
        self._epoch = getattr(data, "epoch", 0)

    def _transform(
        self, x: Nested, rest: list[Nested], rng: np.random.Generator
    ) -> tuple[Nested, ...]:
        """Changes a batch.

        Args:
            x: Its input.
            rest: Its labels and sample weights, as far as it has them.
            rng: Generator of this batch in this epoch.
        """
        raise NotImplementedError

    def _check_first_batch(self) -> None:
        """Raises what is wrong with the data now, and not in `fit`."""
        self._batch(0)
        self._begin(self._epoch)  # It does not count as read.

    @property
    def num_batches(self) -> int | None:
        """Number of batches of the data, or `None` if they are infinite."""
        return self.data.num_batches

    def __len__(self) -> int:
        return len(self.data)

    def _batch(self, index: int) -> tuple[Nested, ...]:
        batch = self.data[index]
        x, *rest = batch if isinstance(batch, (list, tuple)) else (batch,)
        rng = np.random.default_rng([self.seed, self.epoch, index])
        return self._transform(x, rest, rng)

    def _begin(self, epoch: int) -> None:
        super()._begin(epoch)
        if hasattr(self.data, "epoch"):
            self.data.epoch = epoch

    def on_epoch_begin(self) -> None:
        """Tells the data that an epoch begins."""
        self.data.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """Begins the next epoch, here and in the data, if all batches were read."""
        # Other data count for themselves. Ours must not: a batch that a thread reads
        # right now may count for different epochs here and there.
        if not isinstance(self.data, EpochDataset):
            self.data.on_epoch_end()
        super().on_epoch_end()
