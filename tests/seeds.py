"""A seed for programs that tests start."""

import random

import keras
import numpy as np


def set_seed(seed):
    """Seeds what Keras draws from, as `keras.utils.set_random_seed` does.

    That function imports TensorFlow on every backend, which takes seconds.
    """
    if keras.backend.backend() == "tensorflow":
        keras.utils.set_random_seed(seed)
    elif keras.backend.backend() == "torch":
        import torch

        torch.manual_seed(seed)  # Draws the order of rows in `fit`.
    random.seed(seed)
    np.random.seed(seed)
