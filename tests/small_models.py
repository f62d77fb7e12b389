"""Small models, layers and data for tests of the training step."""

import keras
import numpy as np
from keras import ops

CLASSES = 3


def rows(n=16, width=4, seed=0):
    """Gaussian rows, `(n, width)`."""
    return np.random.default_rng(seed).normal(size=(n, width)).astype("float32")


def images(n=16, channels=1, size=8, seed=0):
    """Gaussian images, `(n, size, size, channels)`."""
    shape = (n, size, size, channels)
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def labels(n=16, seed=0):
    """Integer labels, `(n,)`."""
    return np.random.default_rng(seed).integers(0, CLASSES, n).astype("int32")


def mlp(width, hidden=5, name="student", classes=CLASSES, seed=0, **dense_kwargs):
    """A model with layers "hidden" and "logits", the same in training and inference."""
    inputs = keras.Input((width,))
    x = keras.layers.Dense(
        hidden,
        "tanh",
        name="hidden",
        kernel_initializer=keras.initializers.GlorotUniform(seed),
        **dense_kwargs,
    )(inputs)
    logits = keras.layers.Dense(
        classes,
        name="logits",
        kernel_initializer=keras.initializers.GlorotUniform(seed + 1),
    )(x)
    return keras.Model(inputs, logits, name=name)


def cnn(channels, widths=(3,), name="student", size=8, extra=()):
    """A model with layers "conv0", "bn0", "relu0", "pool0", ..., "gap", "logits".

    `extra` layers come before "logits".
    """
    inputs = x = keras.Input((size, size, channels))
    for depth, width in enumerate(widths):
        x = keras.layers.Conv2D(width, 3, padding="same", name=f"conv{depth}")(x)
        x = keras.layers.BatchNormalization(name=f"bn{depth}")(x)
        x = keras.layers.ReLU(name=f"relu{depth}")(x)
        x = keras.layers.MaxPooling2D(name=f"pool{depth}")(x)
    x = keras.layers.GlobalAveragePooling2D(name="gap")(x)
    for layer in extra:
        x = layer(x)
    logits = keras.layers.Dense(CLASSES, name="logits")(x)
    return keras.Model(inputs, logits, name=name)


def crossentropy(**kwargs):
    """The loss for `labels` and logits."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **kwargs)


def copy_of(model):
    """A new model with the same architecture and weights."""
    copy = model.__class__.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    return copy


def standing_still():
    """An optimizer that changes no weights, so that losses can be computed before."""
    return keras.optimizers.SGD(0.0)


def numbers(history):
    """The values of the last epoch of a `fit`."""
    return {name: values[-1] for name, values in history.history.items()}


@keras.saving.register_keras_serializable(package="tests")
class Counting(keras.layers.Layer):
    """Identity that counts its calls in a variable, also in compiled programs."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.calls = self.add_weight(
            name="calls", shape=(), initializer="zeros", trainable=False
        )

    def call(self, inputs):
        self.calls.assign(self.calls + 1.0)
        return inputs

    def count(self):
        return int(ops.convert_to_numpy(self.calls))


@keras.saving.register_keras_serializable(package="tests")
class AddsLoss(keras.layers.Layer):
    """Identity that adds `weight * mean(x²)` to the losses of its model."""

    def __init__(self, weight=1.0, **kwargs):
        super().__init__(**kwargs)
        self.weight = weight

    def call(self, inputs):
        self.add_loss(self.weight * ops.mean(ops.square(inputs)))
        return inputs

    def get_config(self):
        return {**super().get_config(), "weight": self.weight}


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    """A subclassed model, whose weights are created in the first call."""

    def __init__(self, hidden=5, classes=CLASSES, **kwargs):
        super().__init__(**kwargs)
        self.sizes = (hidden, classes)
        self.hidden = keras.layers.Dense(hidden, "tanh", name="hidden")
        self.head = keras.layers.Dense(classes, name="logits")

    def call(self, inputs):
        return self.head(self.hidden(inputs))

    def get_config(self):
        hidden, classes = self.sizes
        return {**super().get_config(), "hidden": hidden, "classes": classes}


@keras.saving.register_keras_serializable(package="tests")
class Composite(keras.layers.Layer):
    """A layer (not a model) that contains the layers "squeeze" and "widen"."""

    def __init__(self, width=4, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.squeeze = keras.layers.Dense(2, name="squeeze")
        self.widen = keras.layers.Dense(width, name="widen")

    def build(self, input_shape):
        self.squeeze.build(input_shape)
        self.widen.build((*input_shape[:-1], 2))
        self.built = True

    def call(self, inputs):
        return self.widen(ops.tanh(self.squeeze(inputs)))

    def get_config(self):
        return {**super().get_config(), "width": self.width}
