"""Selects the Keras backend of a script by its option `--backend`."""

import os
import sys


def move_to(name):
    """Restarts the script with another Keras backend, unless that is the current one.

    Keras reads the backend during its import.

    Args:
        name: Name of the backend, or `None` for the current one.
    """
    import keras

    if name not in (None, keras.backend.backend()):
        os.environ["KERAS_BACKEND"] = name
        os.execv(sys.executable, [sys.executable, *sys.argv])
