"""Small networks for the examples, teacher and student alike."""

import keras


def cnn(input_shape, classes, widths, name):
    """Blocks of convolution, batch normalisation, ReLU and pooling.

    Args:
        input_shape: `(height, width, channels)` of images scaled to about [0, 1].
        classes: Number of classes.
        widths: Channels of each block. Between blocks the resolution is halved.
        name: Name of the model.

    Returns:
        A `keras.Model` that gives logits. Block i ends in the layer `block{i}`,
        counted from 1; the last Dense layer, `logits`, reads the layer `features`.
    """
    x = inputs = keras.Input(input_shape)
    for number, width in enumerate(widths, start=1):
        if number > 1:
            x = keras.layers.MaxPooling2D(name=f"pool{number - 1}")(x)
        x = keras.layers.Conv2D(
            width, 3, padding="same", use_bias=False, name=f"conv{number}"
        )(x)
        # Short trainings: statistics must settle within some hundred steps.
        x = keras.layers.BatchNormalization(momentum=0.9, name=f"norm{number}")(x)
        x = keras.layers.ReLU(name=f"block{number}")(x)
    x = keras.layers.GlobalAveragePooling2D(name="features")(x)
    outputs = keras.layers.Dense(classes, name="logits")(x)
    return keras.Model(inputs, outputs, name=name)


def mlp(input_shape, classes, widths, name):
    """Blocks of a dense layer, batch normalisation and ReLU, for rows of a table.

    Args:
        input_shape: `(columns,)`, of columns that are standardised.
        classes: Number of classes.
        widths: Units of each block.
        name: Name of the model.

    Returns:
        A `keras.Model` that gives logits. Block i ends in the layer `block{i}`,
        counted from 1; the last Dense layer, `logits`, reads the layer `features`,
        which is the last block's end by another name.
    """
    x = inputs = keras.Input(input_shape)
    for number, width in enumerate(widths, start=1):
        x = keras.layers.Dense(width, use_bias=False, name=f"dense{number}")(x)
        x = keras.layers.BatchNormalization(momentum=0.9, name=f"norm{number}")(x)
        x = keras.layers.ReLU(name=f"block{number}")(x)
    x = keras.layers.Identity(name="features")(x)
    outputs = keras.layers.Dense(classes, name="logits")(x)
    return keras.Model(inputs, outputs, name=name)
