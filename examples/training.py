"""What every training of the examples shares: order of rows, schedule, progress."""

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
    """Trains with AdamW, the learning rate warmed up and then brought down.

    Args:
        model: What is compiled and fitted: a student, or a distiller.
        x: Its input.
        y: Labels.
        seed: Of the order of rows, and of what is mixed.
        epochs: Number of epochs.
        steps: Number of steps, rounded to whole epochs, in the place of `epochs`.
        batch_size: Samples a batch; the rest of an epoch is left out, as batch
            statistics want full batches.
        learning_rate: The highest.
        loss: Loss of the labels; by default that of class indices.
        mix: `alpha` of `keras_dskd.MixedPairs`, or 0 to show rows as they are.
        labeled_share: If `x` has a "label_mask": the share of each batch that has
            labels, or 0 to draw all rows alike.
        moves: Layers of `keras_dskd.AugmentedPairs`, or `None`.
        average: Whether the trained weights are a moving average over steps.
        callbacks: Callbacks for `fit`.

    Returns:
        What `fit` returned, a `keras.callbacks.History`.
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
    # Keras would change the order of batches, by a generator that models draw from too.
    return model.fit(
        batches, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks
    )


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
