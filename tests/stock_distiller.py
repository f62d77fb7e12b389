"""Tiny models, and one epoch of Keras's own Distiller with them."""

import warnings

import keras
import numpy as np
import reference

SAMPLES, INPUTS, WIDTH, CLASSES = 12, 5, 4, 3


def model(role, width=WIDTH, classes=CLASSES, activation=None, positions=()):
    """A model with the layers `{role}_feature` (`width` channels) and `{role}_logits`.

    With `positions=(p,)` the feature has p positions, pooled before the logits.
    """
    inputs = keras.Input((*positions, INPUTS))
    x = keras.layers.Dense(width, "tanh", name=f"{role}_feature")(inputs)
    if positions:
        x = keras.layers.GlobalAveragePooling1D(name=f"{role}_pooled")(x)
    outputs = keras.layers.Dense(classes, activation, name=f"{role}_logits")(x)
    return keras.Model(inputs, outputs, name=role)


def distillation_loss_of_an_epoch(loss, teacher, student, from_logits=True):
    """Fits one epoch; returns `distillation_loss` and the features that it compared.

    A learning rate of 0 and a single batch leave the features unchanged.
    """
    x = reference.samples(SAMPLES, *student.input_shape[1:]).astype("float32")
    y = np.arange(SAMPLES) % CLASSES
    features = {
        layer.name: keras.Model(model.input, layer.output).predict(x, verbose=0)
        for model in (teacher, student)
        for layer in model.layers[1:]
    }
    distiller = keras.distillation.Distiller(teacher, student, loss)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits)
    distiller.compile(keras.optimizers.SGD(0.0), cross_entropy)
    with warnings.catch_warnings():
        # It calls its feature extractors, models with input [x], with x.
        warnings.filterwarnings("ignore", ".*structure of `inputs`")
        history = distiller.fit(x, y, batch_size=SAMPLES, verbose=0).history
    return history["distillation_loss"][0], features
