"""What a graph says of a model's outputs, and what a batch of them shows."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_dskd.features.output_kind import output_kinds
from keras_dskd.features.output_values import (
    is_within_0_and_1,
    looks_like_probabilities,
)

pytestmark = pytest.mark.backend_neutral


def kind(*make, activation=None):
    """The kind of the output that `make` makes from one or two `Dense` outputs."""
    inputs = keras.Input((4,))
    heads = [layers.Dense(3, activation)(inputs) for _ in range(2)]
    (made,) = output_kinds(keras.Model(inputs, make[0](*heads) if make else heads[0]))
    return made


KEEP = {
    "nothing": lambda a, b: a,
    "average": lambda a, b: layers.Average()([a, b]),
    "mean of a stack": lambda a, b: ops.mean(ops.stack([a, b]), axis=0),
    "half of the sum": lambda a, b: (a + b) / 2,
    "linear activation": lambda a, b: layers.Activation("linear", dtype="float32")(a),
    "reshape": lambda a, b: layers.Reshape((1, 3))(a),
    "identity": lambda a, b: layers.Identity()(a),
    "dropout": lambda a, b: layers.Dropout(0.1)(a),
    "cast": lambda a, b: ops.cast(a, "float16"),
    "slice": lambda a, b: a[:, :2],
    "rescaling": lambda a, b: layers.Rescaling(0.5)(a),
    "several": lambda a, b: layers.Reshape((3,))(layers.Average()([a, a[:, :]])),
}


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "linear"])
@pytest.mark.parametrize("make", KEEP.values(), ids=KEEP)
def test_operations_that_move_or_average_values_keep_their_kind(make, activation):
    assert kind(make, activation=activation) == activation


SOFTMAX = {
    "layer": lambda a, b: layers.Softmax()(a),
    "operation": lambda a, b: ops.softmax(a),
    "activation": lambda a, b: layers.Activation("softmax")(a),
}


@pytest.mark.parametrize("make", SOFTMAX.values(), ids=SOFTMAX)
def test_a_softmax_apart_from_the_head_is_found(make):
    assert kind(make) == "softmax"


def test_log_probabilities_are_logits():
    assert kind(lambda a, b: ops.log_softmax(a)) == "linear"


UNKNOWN = {
    "exponential": lambda a, b: ops.exp(a),
    "product": lambda a, b: a * b,
    "softmax and logits": lambda a, b: layers.Concatenate()([ops.softmax(a), b]),
    "relu": lambda a, b: layers.ReLU()(a),
}


@pytest.mark.parametrize("make", UNKNOWN.values(), ids=UNKNOWN)
def test_other_operations_have_no_known_kind(make):
    assert kind(make) is None


def test_each_output_of_a_nested_model_has_its_kind():
    inputs = keras.Input((4,))
    heads = [layers.Dense(3, act)(inputs) for act in ("softmax", "linear")]
    inner = keras.Model(inputs, heads)
    outer = keras.Input((4,))
    first, second = inner(outer)
    assert output_kinds(inner) == ["softmax", "linear"]
    assert output_kinds(keras.Model(outer, [second, first])) == ["linear", "softmax"]


def test_the_kind_of_a_named_layer_is_found():
    inputs = keras.Input((4,))
    hidden = layers.Dense(3, "softmax", name="predictions")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(hidden))
    assert output_kinds(model, "predictions") == ["softmax"]
    assert output_kinds(model) == ["linear"]


def test_an_unbuilt_sequential_model_is_read_from_its_last_layers():
    model = keras.Sequential([layers.Dense(3), layers.Softmax(), layers.Dropout(0.1)])
    assert output_kinds(model) == ["softmax"]


def test_a_head_for_each_step_is_found():
    inputs = keras.Input((5, 4))
    head = layers.TimeDistributed(layers.Dense(3, "softmax"))
    assert output_kinds(keras.Model(inputs, head(inputs))) == ["softmax"]


def test_a_subclassed_model_has_no_known_kind():
    """Its `call` may not end with its last layer."""

    class WithProbabilities(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3)
            self.softmax = layers.Softmax()

        def call(self, x):
            return self.dense(x)

    model = WithProbabilities()
    model(np.ones((2, 4)))
    assert output_kinds(model) == [None]


def test_a_linear_activation_in_a_subclassed_model_may_return_probabilities():
    class WithLinear(keras.Model):
        def __init__(self):
            super().__init__()
            self.softmax = layers.Dense(3, "softmax", name="dense")
            self.as_float32 = layers.Activation("linear", name="out", dtype="float32")

        def call(self, x):
            return self.as_float32(self.softmax(x))

    model = WithLinear()
    model(np.ones((2, 4)))
    assert output_kinds(model, "out") == [None]
    assert output_kinds(model, "dense") == ["softmax"]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_values_of_a_softmax_are_recognized(dtype):
    logits = np.random.default_rng(0).normal(size=(8, 5))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert looks_like_probabilities(probabilities.astype(dtype))
    assert looks_like_probabilities(probabilities.T.astype(dtype), axis=0)
    for others in (logits, probabilities * 0.9, probabilities[:, :1]):
        assert not looks_like_probabilities(others.astype(dtype))
    assert is_within_0_and_1(probabilities) and not is_within_0_and_1(logits)
