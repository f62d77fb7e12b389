"""Training for all examples: order of rows, schedule, progress."""

import time

import keras

import keras_dskd


def train(
    model,
    x,
    y,
    *,
    seed,
    epochs=None,
    steps=None,
    batch_size,
    learning_rate=3e-3,
    loss=None,
    mix=0.0,
    labeled_share=0.25,
    moves=None,
    average=False,
    callbacks=None,
):
    """Trains with AdamW and a learning rate that warms up and then decays.

    Args:
        model: Model to compile and fit: a student, or a distiller.
        x: Its input.
        y: Labels.
        seed: Seed for the order of rows and for mixing.
        epochs: Number of epochs.
        steps: Number of steps, rounded to whole epochs, instead of `epochs`.
        batch_size: Samples per batch. The rest of an epoch is dropped, because batch
            statistics need full batches.
        learning_rate: Highest learning rate.
        loss: Loss for the labels; by default, the loss for class indices.
        mix: `alpha` of `keras_dskd.MixedPairs`, or 0 not to mix.
        labeled_share: If `x` has a "label_mask": the share of each batch that has
            labels, or 0 to draw all rows alike.
        moves: Layers of `keras_dskd.AugmentedPairs`, or `None`.
        average: Whether the trained weights are a moving average over steps.
        callbacks: Callbacks for `fit`.

    Returns:
        The `keras.callbacks.History` that `fit` returned.
    """
    order = {"batch_size": batch_size, "seed": seed, "drop_remainder": True}
    if isinstance(x, dict) and "label_mask" in x and labeled_share:
        count = min(round(labeled_share * batch_size), int(sum(x["label_mask"])))
        batches = keras_dskd.LabeledShare(x, y, labeled_rows=max(count, 1), **order)
    else:
        batches = keras_dskd.ArrayDataset(x, y, **order)
    if mix:
        batches = keras_dskd.MixedPairs(batches, alpha=mix, seed=seed)
    if moves:
        batches = keras_dskd.AugmentedPairs(batches, moves, seed=seed)
    if epochs is None:
        epochs = max(round(steps / len(batches)), 1)
    model.compile(
        keras.optimizers.AdamW(
            one_cycle(learning_rate, epochs * len(batches)), use_ema=average
        ),
        loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    # Keras would shuffle the batches with a generator that models also use.
    return model.fit(
        batches, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks
    )


def one_cycle(learning_rate, steps):
    """A learning rate that rises over a fifth of the steps, and falls to 0.

    Args:
        learning_rate: Highest learning rate.
        steps: Number of steps of the training.

    Returns:
        A `keras.optimizers.schedules.CosineDecay`.
    """
    warmup = max(steps // 5, 1)
    # Keras counts the decay steps from the end of the warmup.
    return keras.optimizers.schedules.CosineDecay(
        learning_rate / 30,
        max(steps - warmup, 1),
        warmup_target=learning_rate,
        warmup_steps=warmup,
    )


class Progress:
    """One line that shows the current training and the estimated remaining time."""

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
