"""Models that hold trained weights but were never called."""

import keras
import numpy as np
import pytest
from keras import ops
from small_models import Subclassed, crossentropy, labels, mlp, numbers, rows

import keras_dskd
from keras_dskd.features.completing import complete
from keras_dskd.losses import ChannelAlignment, SoftTargets

X, Y = rows(8, 6), labels(8)


def sequential(*layers):
    return keras.Sequential(
        [keras.layers.Rescaling(0.5), mlp(6, name="pretrained"), *layers],
        name="teacher",
    )


class Wrapped(keras.Model):
    """Normalizes with fixed numbers, and may have a head of its own."""

    def __init__(self, head=None):
        super().__init__(name="teacher")
        self.normalize = keras.layers.Normalization(mean=1.0, variance=4.0)
        self.normalize.build((None, 6))
        self.pretrained = mlp(6, name="pretrained")
        self.head = head

    def call(self, x):
        x = self.pretrained(self.normalize(x))
        return x if self.head is None else self.head(x)


class MakesVariable(keras.layers.Layer):
    def build(self, shape):
        self.own = keras.Variable("ones", (shape[-1],))

    def call(self, x):
        return x * self.own


def distiller(teacher, loss=None):
    made = keras_dskd.Distiller(teacher, mlp(6), loss or SoftTargets())
    made.compile("sgd", crossentropy())
    return made


@pytest.mark.parametrize("make", [sequential, Wrapped])
def test_a_pretrained_network_in_a_model_that_was_never_called_teaches(make):
    """It trains the student as after a call, and it keeps its weights."""
    called = make()
    called(X[:1])
    expected = numbers(distiller(called).fit(X, Y, verbose=0))
    teacher = make()
    before = teacher.get_weights()
    keras.utils.set_random_seed(0)
    made = distiller(teacher, [SoftTargets(), ChannelAlignment("hidden", "hidden")])
    history = numbers(made.fit(X, Y, verbose=0, epochs=1))
    assert history["soft_targets"] == pytest.approx(
        expected["soft_targets"], rel=1e-4, abs=1e-6
    )
    for old, new in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    # Nothing that belongs to the compiled step remains in the model.
    np.testing.assert_allclose(
        ops.convert_to_numpy(teacher(X[:3])),
        ops.convert_to_numpy(called(X[:3])),
        rtol=1e-5,
    )


def test_such_a_model_is_cached_measured_and_compared(tmp_path):
    cached = distiller(sequential()).cache_teacher(X, tmp_path / "cache", verbose=0)
    expected = ops.convert_to_numpy(mlp(6)(0.5 * X))
    np.testing.assert_allclose(cached["(output)"], expected, rtol=1e-5, atol=1e-6)
    again = distiller(sequential()).cache_teacher(X, tmp_path / "cache", verbose=0)
    np.testing.assert_array_equal(again["(output)"], cached["(output)"])
    report = keras_dskd.structure_report(Wrapped(), X, "hidden", verbose=0)
    assert report.layers["hidden"].channels == 5
    pairs = {"teacher": X, "student": X}
    keras_dskd.check_pairs(
        sequential(), mlp(6), pairs, None, "hidden", "hidden",
        permutations=99, level=0.5, verbose=0,
    )  # fmt: skip


@pytest.mark.parametrize(
    "make",
    [
        lambda: sequential(keras.layers.Dense(3, name="fresh")),
        lambda: Wrapped(keras.layers.Dense(3, name="fresh")),
        lambda: keras.Sequential([Wrapped(keras.layers.Dense(3, name="fresh"))]),
        lambda: sequential(keras.layers.BatchNormalization(name="fresh")),
        lambda: Subclassed(hidden=3, name="teacher"),
        lambda: sequential(MakesVariable(name="fresh")),
    ],
    ids=["sequential", "subclass", "nested", "norm", "nothing", "variable"],
)
def test_a_model_that_needs_new_weights_is_refused_each_time(make):
    """It stays as it was, and may be built by hand."""
    teacher = make()
    count = len(teacher.weights)
    for _ in range(2):
        with pytest.raises(ValueError, match="has no weights yet.* random numbers"):
            complete(teacher, X, "teacher")
        assert not teacher.built
        assert len(teacher.weights) == count
    teacher(X[:5])
    assert len(teacher.weights) > count
    complete(teacher, X)
    assert teacher(X[:3]).shape[0] == 3


def test_layers_elsewhere_create_weights_while_one_model_is_refused():
    assert keras.layers.Layer.add_weight.__name__ == "add_weight"
    with pytest.raises(ValueError, match="'hidden' would start"):
        complete(Subclassed(), X)
    assert keras.layers.Layer.add_weight.__name__ == "add_weight"
    assert len(mlp(6).weights) == 4


def test_an_error_of_the_model_itself_is_raised():
    class Fails(keras.Model):
        def call(self, x):
            raise ValueError("of its own")

    with pytest.raises(ValueError, match="of its own"):
        complete(Fails(), X)


def test_measuring_a_model_without_weights_raises():
    with pytest.raises(ValueError, match="model 'subclassed.*has no weights yet"):
        keras_dskd.structure_report(Subclassed(), X, "hidden", verbose=0)
