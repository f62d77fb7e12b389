"""Small tasks of each kind, made from scikit-learn's digits: data, networks and scores.

The strong modality is a clean image of 8x8 digits, or the sequence of its rows. The
weak modality has half the resolution and added noise. Test samples use digits that are
in no training sample.
"""

from typing import NamedTuple

import keras
import numpy as np
import sklearn.datasets
from keras import layers

TRAINING_SAMPLES, TEST_SAMPLES = 1500, 600
NOISE = 0.3


class Task(NamedTuple):
    """One task.

    Attributes:
        make: Function of `(images, digits, generator)` that returns `(x, y)`.
        network: Function of `(width, name)` that returns a `keras.Model`.
        loss: The loss for `compile`.
        score: Function of `(y, prediction)` that returns a number. 1 is best.
        length: Factor for the number of steps of its students.
    """

    make: callable
    network: callable
    loss: object
    score: callable
    length: int = 1


def samples(task, seed):
    """The training samples and the test samples, each `(strong, weak, y)`."""
    images, digits = sklearn.datasets.load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8) / 16).astype("float32")
    rng = np.random.default_rng(seed)
    pools = {"train": slice(1200), "test": slice(1200, None)}
    sizes = {"train": TRAINING_SAMPLES, "test": TEST_SAMPLES}
    made = {
        name: task.make(images[pool], digits[pool], sizes[name], rng)
        for name, pool in pools.items()
    }
    parts = {}
    for name, (strong, y) in made.items():
        parts[name] = strong, weak(strong, rng), y
    return parts["train"], parts["test"]


def weak(strong, rng):
    """Half the resolution along the last position axis, and added noise."""
    cells = strong.reshape(*strong.shape[:2], -1, 2)
    low = cells.mean(-1, keepdims=True).repeat(2, -1).reshape(strong.shape)
    noisy = low + NOISE * rng.normal(size=strong.shape)
    if strong.ndim == 3:  # A sequence: padded steps stay 0.
        noisy *= strong.any(axis=-1, keepdims=True)
    return noisy.astype("float32")


# Data


def _draw(images, digits, count, rng, each=1):
    rows = rng.integers(len(images), size=(count, each))
    return images[rows], digits[rows]  # (count, each, 8, 8), (count, each)


def one_digit(images, digits, count, rng):
    """`(n, 8, 8, 1)` and the class."""
    drawn, classes = _draw(images, digits, count, rng)
    return drawn[:, 0, :, :, None], classes[:, 0]


def is_high(images, digits, count, rng):
    """The same image, and whether the digit is 5 or more."""
    x, classes = one_digit(images, digits, count, rng)
    return x, (classes >= 5).astype("float32")[:, None]


def three_digits(images, digits, count, rng):
    """`(n, 8, 24, 1)` and which of ten digits appear."""
    drawn, classes = _draw(images, digits, count, rng, 3)
    x = np.concatenate(list(np.moveaxis(drawn, 1, 0)), axis=2)[..., None]
    return x, (classes[:, :, None] == np.arange(10)).any(1).astype("float32")


def center(images, digits, count, rng):
    """A digit somewhere in `(n, 16, 16, 1)`; its place and ink, scaled to about 1."""
    drawn, _ = _draw(images, digits, count, rng)
    places = rng.integers(9, size=(count, 2))
    x = np.zeros((count, 16, 16, 1), "float32")
    for image, digit, (top, left) in zip(x, drawn[:, 0], places, strict=True):
        image[top : top + 8, left : left + 8, 0] = digit
    y = np.concatenate([places / 4 - 1, _ink(drawn[:, 0])], axis=1)
    return x, y.astype("float32")


def segments(images, digits, count, rng):
    """Four digits in `(n, 16, 16, 1)`, and each pixel's class: 10 is background."""
    drawn, classes = _draw(images, digits, count, rng, 4)
    grid = drawn.reshape(count, 2, 2, 8, 8).swapaxes(2, 3).reshape(count, 16, 16)
    of_cell = classes.reshape(count, 2, 1, 2, 1)
    labels = np.broadcast_to(of_cell, (count, 2, 8, 2, 8)).reshape(count, 16, 16)
    return grid[..., None], np.where(grid > 0.25, labels, 10)


def rows(images, digits, count, rng):
    """The rows of a digit as a sequence `(n, 8, 8)`, and the class."""
    x, classes = one_digit(images, digits, count, rng)
    return x[..., 0], classes


def rows_of_any_length(images, digits, count, rng):
    """The rows of one or two digits, padded to `(n, 16, 8)`, and the first's class."""
    drawn, classes = _draw(images, digits, count, rng, 2)
    x = drawn.reshape(count, 16, 8).copy() + 0.01
    x[rng.random(count) < 0.5, 8:] = 0
    return x, classes[:, 0]


def class_and_ink(images, digits, count, rng):
    """One digit, its class, and how dark it is."""
    x, classes = one_digit(images, digits, count, rng)
    return x, {"digit": classes, "ink": _ink(x[..., 0]).astype("float32")}


def _ink(images):
    """The mean brightness, roughly standardized, `(n, 1)`."""
    return (images.mean(axis=(1, 2))[:, None] - 0.3) / 0.05


# Networks


def _blocks(x, width):
    for number, factor in enumerate((1, 2, 2), start=1):
        x = layers.Conv2D(factor * width, 3, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.ReLU(name=f"block{number}")(x)
        if number < 3:
            x = layers.MaxPooling2D()(x)
    return x


def convolutional(shape, outputs):
    """Three blocks of convolutions."""

    def network(width, name):
        inputs = keras.Input(shape)
        x = layers.GlobalAveragePooling2D()(_blocks(inputs, width))
        return keras.Model(inputs, layers.Dense(outputs)(x), name=name)

    return network


def flattened(shape, outputs):
    """The same, but flattened instead of pooled, which keeps positions."""

    def network(width, name):
        inputs = keras.Input(shape)
        x = layers.Flatten()(_blocks(inputs, width))
        return keras.Model(inputs, layers.Dense(outputs)(x), name=name)

    return network


def two_heads(width, name):
    """A class and a number."""
    inputs = keras.Input((8, 8, 1))
    x = layers.GlobalAveragePooling2D()(_blocks(inputs, width))
    made = {"digit": layers.Dense(10, name="digit")(x)}
    made["ink"] = layers.Dense(1, name="ink")(x)
    return keras.Model(inputs, made, name=name)


def u_net(width, name):
    """A U-Net of three depths."""
    x = inputs = keras.Input((16, 16, 1))
    skips = []

    def block(x, factor):
        x = layers.Conv2D(factor * width, 3, padding="same", use_bias=False)(x)
        return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))

    for factor in (1, 2):
        skips.append(block(x, factor))
        x = layers.MaxPooling2D()(skips[-1])
    x = block(x, 4)
    for factor, skip in ((2, skips[1]), (1, skips[0])):
        x = layers.Concatenate()([layers.UpSampling2D()(x), skip])
        x = block(x, factor)
    return keras.Model(inputs, layers.Conv2D(11, 1)(x), name=name)


def convolutions_1d(width, name):
    """Three 1-D convolutions."""
    x = inputs = keras.Input((8, 8))
    for _ in range(3):
        x = layers.Conv1D(2 * width, 3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(10)(x), name=name)


def recurrent(width, name):
    """Two recurrent layers over the steps that are not padding."""
    inputs = keras.Input((16, 8))
    x = layers.Masking()(inputs)
    x = layers.Bidirectional(layers.GRU(width, return_sequences=True))(x)
    x = layers.Bidirectional(layers.GRU(width))(x)
    return keras.Model(inputs, layers.Dense(10)(x), name=name)


def transformer(width, name):
    """Two transformer blocks over the steps that are not padding."""
    inputs = keras.Input((16, 8))
    x = layers.Dense(2 * width)(layers.Masking()(inputs))
    steps = keras.ops.cumsum(keras.ops.ones_like(inputs[..., 0], "int32"), axis=1)
    x = x + layers.Embedding(16, 2 * width)(steps - 1)
    for _ in range(2):
        read = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(2, width)(read, read)])
        read = layers.Dense(4 * width, "relu")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(2 * width)(read)])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(inputs, layers.Dense(10)(x), name=name)


# Scores


def accuracy(y, prediction):
    """Share of correct classes, per sample or per position."""
    return float(np.mean(np.argmax(prediction, -1) == y))


def balanced_accuracy(y, logits):
    """Mean over labels of the mean of sensitivity and specificity."""
    right = (logits > 0) == (y > 0.5)
    sensitivity = (right * y).sum(0) / y.sum(0)
    specificity = (right * (1 - y)).sum(0) / (1 - y).sum(0)
    return float(np.mean((sensitivity + specificity) / 2))


def r_squared(y, prediction):
    """Explained share of the variance, averaged over the outputs."""
    residual = np.mean((y - np.reshape(prediction, y.shape)) ** 2, axis=0)
    return float(np.mean(1 - residual / y.var(axis=0)))


def mean_iou(y, prediction):
    """Intersection over union, averaged over the classes."""
    found = np.argmax(prediction, -1)
    scores = [
        np.sum((found == k) & (y == k)) / np.sum((found == k) | (y == k))
        for k in np.union1d(found, y)
    ]
    return float(np.mean(scores))


def both(y, prediction):
    """Mean of the accuracy and of the explained variance."""
    scores = (
        accuracy(y["digit"], prediction["digit"]),
        r_squared(y["ink"], prediction["ink"]),
    )
    return float(np.mean(scores))


def _classes():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _labels():
    return keras.losses.BinaryCrossentropy(from_logits=True)


TASKS = {
    "classes": Task(one_digit, convolutional((8, 8, 1), 10), _classes(), accuracy),
    "one sigmoid": Task(
        is_high, convolutional((8, 8, 1), 1), _labels(), balanced_accuracy
    ),
    "labels": Task(
        three_digits, flattened((8, 24, 1), 10), _labels(), balanced_accuracy
    ),
    "numbers": Task(center, flattened((16, 16, 1), 3), "mse", r_squared),
    "segmentation": Task(segments, u_net, _classes(), mean_iou, length=3),
    "two heads": Task(
        class_and_ink, two_heads, {"digit": _classes(), "ink": "mse"}, both
    ),
    "1-D convolutions": Task(rows, convolutions_1d, _classes(), accuracy),
    "recurrent, masked": Task(rows_of_any_length, recurrent, _classes(), accuracy),
    "transformer, masked": Task(rows_of_any_length, transformer, _classes(), accuracy),
}
