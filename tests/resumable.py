"""A training run whose files must hold every kind of state.

As a program, it saves its files or kills itself at a step.
"""

import os
import signal
import sys

import keras
import numpy as np
from small_models import cnn, crossentropy, images, labels

import keras_dskd

EPOCHS, STEPS, BATCH = 3, 4, 4
N = STEPS * BATCH
X = {"teacher": images(N, 3, seed=1), "student": images(N, 1, seed=2)}
Y = labels(N)


def distiller():
    """Has a projector, a schedule, batch statistics, an optimizer state and dropout."""
    made = keras_dskd.Distiller(
        cnn(3, widths=(6,), name="teacher"),
        cnn(1, widths=(4,), extra=[keras.layers.Dropout(0.5, seed=3, name="drop")]),
        [
            keras_dskd.losses.SoftTargets(2.0),
            keras_dskd.losses.ChannelIndependence("gap", "gap"),
            keras_dskd.losses.SpatialUniformity("relu0"),
        ],
        distillation_loss_weights=[
            1.0,
            keras.optimizers.schedules.PolynomialDecay(0.0, 10, 1.0),
            0.2,
        ],
        student_loss_weight=0.4,
        projectors={"gap": keras.layers.Dense(6)},
    )
    made.compile(keras.optimizers.Adam(0.02), crossentropy(), metrics=["accuracy"])
    return made


def fit(made, epochs=EPOCHS, **kwargs):
    """Trains until this epoch, always on the same batches."""
    return made.fit(
        X, Y, epochs=epochs, batch_size=BATCH, shuffle=False, verbose=0, **kwargs
    ).history


class At(keras.callbacks.Callback):
    """Calls `action` after a step, counted over all epochs."""

    def __init__(self, step, action):
        super().__init__()
        self.step, self.action, self.seen = step, action, 0

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        if self.seen == self.step:
            self.action()


def backup(folder):
    """A callback that restores a stopped run, and backs up each epoch."""
    path = os.path.join(folder, "backup")
    return keras.callbacks.BackupAndRestore(path, double_checkpoint=True)


def kill():
    """Ends the process without any clean-up."""
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    task, folder = sys.argv[1:]
    keras.utils.set_random_seed(0)
    run = distiller()
    if task == "save":
        fit(run, 1)
        run.save(os.path.join(folder, "distiller.keras"))
        run.save_weights(os.path.join(folder, "distiller.weights.h5"))
        # Random layers draw different numbers on each backend.
        run.student.get_layer("drop").rate = 0.0
        run.make_train_function(force=True)
        np.savez(os.path.join(folder, "expected.npz"), **fit(run, 2))
    else:
        fit(run, callbacks=[backup(folder), At(int(task), kill)])
