"""What every training of the examples shares: order of batches, schedule, progress."""

import time

import keras
import numpy as np


class Batches(keras.utils.PyDataset):
    """Shuffled batches in an order given by the seed alone, on every backend.

    Args:
        x: Array, or dict of arrays: the modalities, paired by row.
        y: Labels; one-hot where rows are mixed.
        seed: Of the order, and of what is mixed.
        batch_size: Samples a batch; the rest of an epoch is left out.
        mix: With a number a above 0, each row becomes `m row + (1 - m) other`, where
            the other is a row of the same batch and m is drawn once a batch from
            Beta(a, a): mixup (Zhang et al. 2018, arXiv 1710.09412). All modalities
            and the labels are mixed alike, so that rows remain pairs.
    """

    def __init__(self, x, y, seed, batch_size, mix=0.0):
        super().__init__()
        self.x, self.y, self.seed, self.batch_size = x, y, seed, batch_size
        self.mix = mix
        self.epoch = -1
        self.on_epoch_end()

    def __len__(self):
        # Batch statistics want full batches.
        return len(self.y) // self.batch_size

    def __getitem__(self, index):
        rows = self.order[index * self.batch_size :][: self.batch_size]
        batch = keras.tree.map_structure(lambda array: array[rows], (self.x, self.y))
        if not self.mix:
            return batch
        rng = np.random.default_rng([self.seed, self.epoch, index])
        share, others = rng.beta(self.mix, self.mix), rng.permutation(len(rows))
        return keras.tree.map_structure(
            lambda array: (share * array + (1 - share) * array[others]).astype(
                "float32"
            ),
            batch,
        )

    def on_epoch_end(self):
        self.epoch += 1
        order = np.random.default_rng([self.seed, self.epoch])
        self.order = order.permutation(len(self.y))


def train(
    model, x, y, *, seed, epochs, batch_size, learning_rate=3e-3, loss=None, mix=0.0
):
    """Trains with AdamW, the learning rate warmed up and then brought down.

    Args:
        model: What is compiled and fitted: a student, or a distiller.
        x: Its input.
        y: Labels.
        seed: Of the order of batches.
        epochs: Number of epochs.
        batch_size: Samples a batch; the rest of an epoch is left out.
        learning_rate: The highest.
        loss: Loss of the labels; by default that of class indices.
        mix: As of `Batches`.
    """
    batches = Batches(x, y, seed, batch_size, mix)
    model.compile(
        keras.optimizers.AdamW(one_cycle(learning_rate, epochs * len(batches))),
        loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(batches, epochs=epochs, verbose=0)


def one_cycle(learning_rate, steps):
    """A learning rate that rises over a fifth of the steps, and falls to 0.

    Args:
        learning_rate: The highest.
        steps: All steps of the training.

    Returns:
        A `keras.optimizers.schedules.CosineDecay`.
    """
    warmup = max(steps // 5, 1)
    # Keras counts the steps of the decay from the end of the warmup on.
    return keras.optimizers.schedules.CosineDecay(
        learning_rate / 30,
        max(steps - warmup, 1),
        warmup_target=learning_rate,
        warmup_steps=warmup,
    )


class Progress:
    """One line that says what is being trained, and how long the rest will take."""

    def __init__(self, total):
        self.total, self.count, self.start = total, 0, time.monotonic()

    def next(self, what):
        """Starts the next training."""
        left = ""
        if self.count:
            seconds = (time.monotonic() - self.start) / self.count
            left = f", about {seconds * (self.total - self.count):.0f} s left"
        self.count += 1
        self._write(f"[{self.count}/{self.total}] {what}{left}")

    def done(self):
        """Ends the line."""
        self._write(f"{self.total} trainings in {time.monotonic() - self.start:.0f} s")
        print(flush=True)

    def _write(self, text):
        print(f"\r{text:78}", end="", flush=True)
