"""The Keras masks of tapped outputs."""

import keras
import numpy as np
from keras import layers, ops

from keras_dskd.features.step_masks import StepMasks
from keras_dskd.features.taps import OUTPUT, Tap, capture

TOKENS = np.array([[3, 1, 2, 0], [4, 0, 0, 0]])
REAL = TOKENS != 0


def masks_of(model, x, *names):
    masks = StepMasks()
    with capture([Tap(model, name) for name in names], masks) as features:
        features[OUTPUT] = model(ops.convert_to_tensor(x))
    return {
        name: keras.tree.map_structure(ops.convert_to_numpy, mask)
        for name, mask in masks.of(features).items()
    }


def embedded(width=4):
    inputs = keras.Input((None,), dtype="int32")
    embedding = layers.Embedding(5, width, mask_zero=True, name="tokens")
    return inputs, embedding(inputs)


def check(masks, *names):
    assert set(masks) == set(names)
    for name in names:
        np.testing.assert_array_equal(masks[name], REAL)


def test_layers_that_pass_the_mask_on_have_one():
    inputs, x = embedded()
    x = layers.GRU(3, return_sequences=True, name="states")(x)
    x = layers.GlobalAveragePooling1D(name="pool")(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    masks = masks_of(model, TOKENS, "tokens", "states", "pool")
    check(masks, "tokens", "states")


def test_the_mask_of_a_layer_that_attention_reads():
    """Keras's attention removes the masks of its inputs."""
    inputs, x = embedded()
    x = layers.MultiHeadAttention(2, 2, name="attention")(x, x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    masks = masks_of(model, TOKENS, "tokens", "attention")
    check(masks, "tokens", "attention", OUTPUT)


def test_a_layer_of_values_to_mask():
    inputs = keras.Input((4, 2))
    x = layers.Masking(name="masked")(inputs)
    model = keras.Model(inputs, layers.TimeDistributed(layers.Dense(3, name="each"))(x))
    x = np.where(REAL[..., None], np.ones((2, 4, 2)), 0.0).astype("float32")
    check(masks_of(model, x, "masked", "each"), "masked", "each", OUTPUT)


def test_outputs_without_a_mask_among_others_are_all_real():
    inputs, x = embedded()
    lstm = layers.LSTM(3, return_sequences=True, return_state=True, name="lstm")
    sequence, state, _ = lstm(x)
    model = keras.Model(inputs, {"sequence": sequence, "state": state})
    masks = masks_of(model, TOKENS, "lstm:0", "lstm:1")
    check({"lstm:0": masks["lstm:0"]}, "lstm:0")
    assert "lstm:1" not in masks
    np.testing.assert_array_equal(masks[OUTPUT]["sequence"], REAL)
    np.testing.assert_array_equal(masks[OUTPUT]["state"], [True, True])


def test_a_vector_with_a_mask_of_steps_has_none():
    """As of a layer that reduces the steps, and passes their mask on."""

    class Sum(layers.Layer):
        def __init__(self):
            super().__init__(name="sum")
            self.supports_masking = True

        def call(self, x, mask=None):
            return ops.sum(x, axis=1)

    inputs, x = embedded()
    model = keras.Model(inputs, layers.Dense(2)(Sum()(x)))
    check(masks_of(model, TOKENS, "tokens", "sum"), "tokens")
