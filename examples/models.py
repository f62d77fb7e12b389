"""Networks for the examples, for both teacher and student."""

import keras


def cnn(input_shape, classes, widths, name):
    """Blocks of convolution, batch normalization, ReLU and pooling.

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
        # Trainings are short: statistics must settle within a few hundred steps.
        x = keras.layers.BatchNormalization(momentum=0.9, name=f"norm{number}")(x)
        x = keras.layers.ReLU(name=f"block{number}")(x)
    x = keras.layers.GlobalAveragePooling2D(name="features")(x)
    outputs = keras.layers.Dense(classes, name="logits")(x)
    return keras.Model(inputs, outputs, name=name)


def resnet(input_shape, classes, widths, name):
    """Residual blocks, two of each width: ResNet-18 with widths 64, 128, 256, 512.

    For images of about 32x32 pixels: the first convolution is 3x3 and keeps the
    resolution.

    Args:
        input_shape: `(height, width, channels)` of images scaled to about [0, 1].
        classes: Number of classes.
        widths: Channels of each stage. Between stages the resolution is halved.
        name: Name of the model.

    Returns:
        A `keras.Model` that gives logits. Stage i ends in the layer `block{i}`,
        counted from 1; the last Dense layer, `logits`, reads the layer `features`.

    Source:
        He et al. 2016 (arXiv 1512.03385), section 4.2's network for small images with
        section 4.1's widths and projected shortcuts.
    """
    inputs = keras.Input(input_shape)
    x = keras.layers.ReLU()(_convolution(inputs, widths[0]))
    for number, width in enumerate(widths, start=1):
        x = _residual(x, width, 1 if number == 1 else 2)
        x = _residual(x, width, 1, name=f"block{number}")
    x = keras.layers.GlobalAveragePooling2D(name="features")(x)
    outputs = keras.layers.Dense(classes, name="logits")(x)
    return keras.Model(inputs, outputs, name=name)


def _residual(x, width, strides, name=None):
    shortcut = x
    if strides > 1 or x.shape[-1] != width:
        shortcut = _convolution(x, width, strides, kernel=1)
    x = keras.layers.ReLU()(_convolution(x, width, strides))
    x = _convolution(x, width)
    return keras.layers.ReLU(name=name)(keras.layers.Add()([x, shortcut]))


def _convolution(x, width, strides=1, kernel=3):
    x = keras.layers.Conv2D(width, kernel, strides, padding="same", use_bias=False)(x)
    return keras.layers.BatchNormalization(momentum=0.9)(x)


def mlp(input_shape, classes, widths, name):
    """Blocks of a dense layer, batch normalization and ReLU, for rows of a table.

    Args:
        input_shape: `(columns,)`. Standardize the columns.
        classes: Number of classes.
        widths: Units of each block.
        name: Name of the model.

    Returns:
        A `keras.Model` that gives logits. Block i ends in the layer `block{i}`,
        counted from 1; the last Dense layer, `logits`, reads the layer `features`,
        which equals the end of the last block.
    """
    x = inputs = keras.Input(input_shape)
    for number, width in enumerate(widths, start=1):
        x = keras.layers.Dense(width, use_bias=False, name=f"dense{number}")(x)
        x = keras.layers.BatchNormalization(momentum=0.9, name=f"norm{number}")(x)
        x = keras.layers.ReLU(name=f"block{number}")(x)
    x = keras.layers.Identity(name="features")(x)
    outputs = keras.layers.Dense(classes, name="logits")(x)
    return keras.Model(inputs, outputs, name=name)


def unet(input_shape, classes, widths, name):
    """A U-Net: an encoder, and a decoder that reads the encoder's stages again.

    Args:
        input_shape: `(height, width, channels)`, sides divisible by
            `2 ** (len(widths) - 1)`.
        classes: Number of classes.
        widths: Channels of each stage of the encoder. Between stages the resolution is
            halved.
        name: Name of the model.

    Returns:
        A `keras.Model` that gives logits for each pixel, `(height, width, classes)`.
        Stage i of the encoder ends in the layer `encoder{i}`, counted from 1.

    Source:
        Ronneberger et al. 2015 (arXiv 1505.04597), with batch normalization, one
        convolution per stage and padding.
    """
    x = inputs = keras.Input(input_shape)
    stages = []
    for number, width in enumerate(widths, start=1):
        if stages:
            x = keras.layers.MaxPooling2D()(x)
        x = keras.layers.ReLU(name=f"encoder{number}")(_convolution(x, width))
        stages.append(x)
    for number in range(len(widths) - 1, 0, -1):
        x = keras.layers.UpSampling2D(interpolation="bilinear")(x)
        x = keras.layers.Concatenate()([stages[number - 1], x])
        x = _convolution(x, widths[number - 1])
        x = keras.layers.ReLU(name=f"decoder{number}")(x)
    outputs = keras.layers.Conv2D(classes, 1, name="logits")(x)
    return keras.Model(inputs, outputs, name=name)


def sequence_cnn(input_shape, classes, widths, name):
    """`cnn` for sequences: blocks of convolution over time, normalization and ReLU.

    Args:
        input_shape: `(steps, channels)`. Standardize the channels.
        classes: Number of classes.
        widths: Channels of each block. Between blocks the number of steps is halved.
        name: Name of the model.

    Returns:
        A `keras.Model` that gives logits. Block i ends in the layer `block{i}`,
        counted from 1; the last Dense layer, `logits`, reads the layer `features`.
    """
    x = inputs = keras.Input(input_shape)
    for number, width in enumerate(widths, start=1):
        if number > 1:
            x = keras.layers.MaxPooling1D(name=f"pool{number - 1}")(x)
        x = keras.layers.Conv1D(width, 5, padding="same", use_bias=False)(x)
        x = keras.layers.BatchNormalization(momentum=0.9)(x)
        x = keras.layers.ReLU(name=f"block{number}")(x)
    x = keras.layers.GlobalAveragePooling1D(name="features")(x)
    outputs = keras.layers.Dense(classes, name="logits")(x)
    return keras.Model(inputs, outputs, name=name)
