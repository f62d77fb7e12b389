"""A small network and images for tests of structure reports and figures."""

import keras
import numpy as np


def model():
    inputs = keras.Input((4, 4, 1))
    x = keras.layers.Conv2D(5, 3, padding="same", name="map")(inputs)
    x = keras.layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x), name="net")


def images(count=40):
    return np.random.default_rng(0).normal(size=(count, 4, 4, 1)).astype("float32")
