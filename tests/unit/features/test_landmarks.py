"""The layers that recipes pick, in models of several kinds."""

import keras
import pytest
from keras import layers, ops

from keras_dskd.features.landmarks import block_ends, head_input, middle_layers

pytestmark = pytest.mark.backend_neutral


def u_net(size=32):
    x = inputs = keras.Input((size, size, 1))
    skips = []
    for depth, width in enumerate((4, 5, 6), start=1):
        x = layers.Conv2D(width, 3, padding="same", name=f"encoder{depth}")(x)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(7, 3, padding="same", name="bottleneck")(x)
    for depth, skip in zip((3, 2, 1), reversed(skips), strict=True):
        x = layers.Conv2DTranspose(4, 2, strides=2)(x)
        x = layers.Concatenate()([x, skip])
        x = layers.Conv2D(4, 3, padding="same", name=f"decoder{depth}")(x)
    masks = layers.Conv2D(3, 1, activation="softmax", name="masks")(x)
    return keras.Model(inputs, masks, name="u_net")


def test_a_u_net_gives_stages_of_its_encoder_and_the_input_of_its_last_convolution():
    assert middle_layers(u_net(), 1) == ["encoder2"]
    assert middle_layers(u_net(), 2) == ["encoder2", "encoder3"]
    assert head_input(u_net()) == "decoder1"


def test_a_u_net_around_a_nested_encoder():
    backbone = keras.Sequential(
        [
            keras.Input((32, 32, 1)),
            *(
                layers.Conv2D(4, 3, 2, padding="same", name=f"stage{number}")
                for number in range(4)
            ),
        ]
    )
    taps = [backbone.get_layer(f"stage{number}").output for number in range(4)]
    encoder = keras.Model(backbone.inputs, taps, name="encoder")
    inputs = keras.Input((32, 32, 1))
    *skips, x = encoder(inputs)
    for skip in reversed(skips):
        x = layers.Concatenate()([layers.Conv2DTranspose(4, 2, strides=2)(x), skip])
    outputs = layers.Conv2DTranspose(3, 2, strides=2, name="masks")(x)
    model = keras.Model(inputs, outputs)
    assert middle_layers(model, 2) == ["encoder/stage1", "encoder/stage2"]


def convolutions(length, pools):
    x = inputs = keras.Input((length, 3))
    for number in range(4):
        x = layers.Conv1D(4, 3, padding="same")(x)
        x = layers.BatchNormalization()(x)
        x = layers.ReLU(name=f"block{number}")(x)
        if pools:
            x = layers.MaxPooling1D()(x)
    x = layers.GlobalAveragePooling1D(name="pooled")(x)
    return keras.Model(inputs, layers.Dense(3)(x))


@pytest.mark.parametrize("length, pools", [(64, True), (64, False), (None, False)])
def test_a_1d_network_gives_stages_or_blocks(length, pools):
    model = convolutions(length, pools)
    assert middle_layers(model, 2) == ["block1", "block2"]
    assert head_input(model) == "pooled"


def transformer(length=10, pre_norm=True, positions=False):
    inputs = keras.Input((length,), dtype="int32")
    x = layers.Embedding(9, 4, mask_zero=True)(inputs)
    if positions:
        x = x + layers.Embedding(10, 4)(ops.arange(10))
    for number in range(4):
        read = layers.LayerNormalization()(x) if pre_norm else x
        attended = layers.MultiHeadAttention(1, 4)(read, read)
        x = layers.Add()([x, attended])
        if not pre_norm:
            x = layers.LayerNormalization()(x)
        read = layers.LayerNormalization()(x) if pre_norm else x
        x = layers.Add(name=f"sum{number}")([x, layers.Dense(4)(read)])
        if not pre_norm:
            x = layers.LayerNormalization(name=f"block{number}")(x)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(2)(x))


@pytest.mark.parametrize("length", [10, None])
def test_a_transformer_gives_blocks(length):
    assert middle_layers(transformer(length), 2) == ["sum1", "sum2"]
    blocks = middle_layers(transformer(length, pre_norm=False), 2)
    assert blocks == ["block1", "block2"]


def test_a_sum_of_embeddings_is_no_block():
    model = transformer(positions=True)
    assert len(block_ends(model)) == 8
    assert middle_layers(model, 1) == ["sum1"]


def test_a_vision_transformer_gives_blocks_of_tokens():
    x = inputs = keras.Input((8, 8, 1))
    x = layers.Reshape((16, 4))(layers.Conv2D(4, 2, 2)(x))
    for number in range(4):
        x = layers.Add(name=f"block{number}")([x, layers.Dense(4)(x)])
    model = keras.Model(inputs, layers.Dense(3)(x[:, 0]))
    assert middle_layers(model, 2) == ["block1", "block2"]
    assert head_input(model).startswith("get_item")


def recurrent(number):
    x = inputs = keras.Input((None, 3))
    x = layers.Masking()(x)
    for depth in range(number - 1):
        lstm = layers.LSTM(4, return_sequences=True)
        x = layers.Bidirectional(lstm, name=f"layer{depth}")(x)
    x = layers.GRU(4, name="last")(x)
    return keras.Model(inputs, layers.Dense(1)(layers.Dropout(0.1)(x)), name="net")


def test_a_recurrent_network_gives_its_layers():
    assert middle_layers(recurrent(2), 2) == ["layer0", "last"]
    assert head_input(recurrent(2)) == "last"


def test_too_few_blocks_raise_and_list_them():
    with pytest.raises(ValueError, match=r"2 blocks are needed.*has 1: \['last'\]"):
        middle_layers(recurrent(1), 2)


def test_the_head_may_be_a_convolution_before_pooling():
    x = inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(4, 3, name="features")(x)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(3, 1)(layers.Dropout(0.1)(x)))
    assert head_input(keras.Model(inputs, layers.Softmax()(x))) == "features"
