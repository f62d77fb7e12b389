"""Layers with several outputs, attention scores, and layers inside loops."""

import keras
import numpy as np
import pytest
from keras import ops
from small_models import CLASSES, crossentropy, labels, numbers, standing_still

import keras_dskd
from keras_dskd import losses
from keras_dskd.features.choosing import RecipeFeatures
from keras_dskd.features.feature_model import FeatureModel, feature_shape
from keras_dskd.features.outputs import listed
from keras_dskd.features.taps import Tap, capture

STEPS, WIDTH, UNITS = 5, 4, 3
SAME = {"rtol": 1e-5, "atol": 1e-6}  # Compiled programs add in another order.


def sequences(n=8, seed=0):
    shape = (n, STEPS, WIDTH)
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def recurrent(name="student"):
    inputs = keras.Input((STEPS, WIDTH))
    lstm = keras.layers.LSTM(
        UNITS, return_sequences=True, return_state=True, name="lstm"
    )
    _, hidden, _ = lstm(inputs)
    outputs = keras.layers.Dense(CLASSES, name="logits")(hidden)
    return keras.Model(inputs, outputs, name=name)


class TwoHeads(keras.Model):
    """A subclassed model whose backbone returns a dict."""

    class Backbone(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = keras.layers.Dense(UNITS)

        def build(self, shape):
            self.dense.build(shape)

        def call(self, x):
            return {"double": 2 * self.dense(x), "once": self.dense(x)}

    def __init__(self):
        super().__init__(name="two_heads")
        self.backbone = self.Backbone(name="backbone")

    def call(self, x):
        features = self.backbone(x)
        return features["once"], features["double"]


def features_of(model, x, *names):
    with capture([Tap(model, name) for name in names]) as features:
        model(x, training=False)
    return {name: ops.convert_to_numpy(value) for name, value in features.items()}


# Several outputs


def test_one_output_of_a_layer_is_read_by_its_number():
    model, x = recurrent(), sequences()
    expected = [ops.convert_to_numpy(y) for y in model.get_layer("lstm")(x)]
    features = features_of(model, x, "lstm:0", "lstm:1", "lstm:2", "lstm#0:1")
    for index in range(3):
        np.testing.assert_allclose(features[f"lstm:{index}"], expected[index], **SAME)
    np.testing.assert_allclose(features["lstm#0:1"], expected[1], **SAME)


def test_an_output_in_a_dict_is_read_by_its_key_or_number():
    model, x = TwoHeads(), sequences()
    once, double = map(ops.convert_to_numpy, model(x))
    features = features_of(model, x, "backbone:once", "backbone:double", "backbone:0")
    np.testing.assert_allclose(features["backbone:once"], once, **SAME)
    np.testing.assert_allclose(features["backbone:double"], double, **SAME)
    np.testing.assert_allclose(features["backbone:0"], double, **SAME)  # Sorted keys.


def test_an_output_of_the_model_itself_is_read_by_its_number():
    model, x = TwoHeads(), sequences()
    _, double = map(ops.convert_to_numpy, model(x))
    np.testing.assert_allclose(features_of(model, x, ":1")[":1"], double, **SAME)


def test_an_output_that_a_layer_lacks_raises():
    """At construction if the graph shows it, else in the pass."""
    expected = (
        r'Tap "lstm:3" not found: the layer has no such output. Its outputs are: '
        r'"lstm:0" with shape \(None, 5, 3\), "lstm:1" with shape \(None, 3\), '
    )
    with pytest.raises(ValueError, match=expected):
        Tap(recurrent(), "lstm:3")
    model = TwoHeads()
    model(sequences())
    with pytest.raises(ValueError, match='"backbone:double" .*"backbone:once" '):
        features_of(model, sequences(), "backbone:boxes")
    with pytest.raises(ValueError, match='as in "lstm:0". Received: "lstm:"'):
        Tap(recurrent(), "lstm:")


def test_a_name_that_holds_the_signs_of_a_tap_finds_its_layer():
    inputs = keras.Input((WIDTH,))
    layer = keras.layers.Dense(2, name="conv:0#1")
    model = keras.Model(inputs, layer(inputs))
    assert Tap(model, "conv:0#1").layer is layer
    assert Tap(model, "conv:0#1#0").call == 0


FEATURE_LOSSES = [
    losses.AttentionTransfer,
    losses.CenteredKernelAlignment,
    losses.ChannelAlignment,
    losses.ChannelIndependence,
    losses.ContrastiveDistillation,
    losses.FitNet,
    losses.RelationalDistillation,
    losses.SimilarityPreserving,
    losses.SpatialUniformity,
]


@pytest.mark.parametrize("loss", FEATURE_LOSSES, ids=lambda loss: loss.__name__)
def test_a_loss_of_one_feature_refuses_several_outputs(loss):
    """It lists the names to use. At construction."""
    given = {"student_layer_name": "lstm"}
    if loss is not losses.SpatialUniformity:
        given["teacher_layer_name"] = "lstm:1"
    expected = 'Layer "lstm" of the student .*Name one: "lstm:0" with shape'
    with pytest.raises(ValueError, match=expected):
        keras_dskd.Distiller(recurrent("teacher"), recurrent(), loss(**given))


def test_several_outputs_of_a_subclassed_model_are_refused_in_the_first_step():
    for names in (("backbone", "backbone:once"), (None, "backbone:once")):
        distiller = keras_dskd.Distiller(
            TwoHeads(), TwoHeads(), losses.FitNet(*names), student_loss_weight=0.0
        )
        distiller.teacher(sequences())
        with pytest.raises(ValueError, match='Name one: "(backbone)?:'):
            distiller(sequences(), training=True)
            distiller.compute_loss(sequences(), None, training=True)


def test_losses_of_the_final_outputs_still_read_several():
    inputs = keras.Input((WIDTH,))
    outputs = [keras.layers.Dense(3)(inputs), keras.layers.Dense(2)(inputs)]
    teacher = keras.Model(inputs, outputs)
    student = keras.models.clone_model(teacher)
    keras_dskd.Distiller(teacher, student, losses.SoftTargets())


def test_one_output_is_distilled_projected_cached_saved_and_measured(tmp_path):
    teacher, student, x = recurrent("teacher"), recurrent(), sequences()
    teacher.set_weights([2 * weight for weight in teacher.get_weights()])
    distiller = keras_dskd.Distiller(
        teacher,
        student,
        losses.ChannelAlignment("lstm:1", "lstm:1"),
        projectors={"lstm:1": keras.layers.Dense(UNITS, name="to_teacher")},
    )
    distiller.compile(standing_still(), crossentropy())
    given = numbers(distiller.fit(x, labels(8), verbose=0))
    cached = distiller.cache_teacher(x, tmp_path / "cache", verbose=0)
    state = ops.convert_to_numpy(teacher.get_layer("lstm")(x)[1])
    np.testing.assert_allclose(cached["lstm:1"], state, **SAME)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    pair = {"student": x, "teacher_features": cached}
    replayed = numbers(loaded.fit(pair, labels(8), verbose=0))
    assert replayed["channel_alignment"] == pytest.approx(
        given["channel_alignment"], rel=1e-4
    )
    report = keras_dskd.structure_report(teacher, x, "lstm:1", verbose=0)
    np.testing.assert_allclose(report.layers["lstm:1"].rows, state, **SAME)
    keras_dskd.check_pairs(
        teacher, teacher, {"teacher": x, "student": x}, None, "lstm:1", "lstm:1",
        permutations=99, level=0.02, verbose=0,
    )  # fmt: skip


def test_measuring_several_outputs_raises():
    with pytest.raises(ValueError, match='Name one: "lstm:0" with shape'):
        keras_dskd.structure_report(recurrent(), sequences(), "lstm", verbose=0)


def test_recipes_read_the_width_of_one_output():
    features = RecipeFeatures("recommended", recurrent("teacher"), recurrent())
    assert features.width("teacher", ("lstm:1", "lstm:1")) == UNITS
    with pytest.raises(ValueError, match='Name one: "lstm:0"'):
        features.width("teacher", ("lstm", "lstm"))


@pytest.mark.backend_neutral
def test_outputs_within_outputs_are_listed():
    nested = {"a": [np.zeros((2, 3))], "b": np.zeros((2, 1))}
    assert listed(nested, "l") == '"l:a" with several outputs, "l:b" with shape (2, 1)'


# Attention


def attention_model(asks=False, **kwargs):
    inputs = keras.Input((STEPS, WIDTH))
    attention = keras.layers.MultiHeadAttention(2, 3, name="attention", **kwargs)
    attended = attention(inputs, inputs, return_attention_scores=asks)
    attended = attended[0] if asks else attended
    pooled = keras.layers.GlobalAveragePooling1D()(attended)
    outputs = keras.layers.Dense(CLASSES)(pooled)
    return keras.Model(inputs, outputs, name="attends")


@pytest.mark.parametrize("asks", [False, True])
def test_attention_scores_are_read_by_name(asks):
    """Whether or not the model asks for them. The prediction stays the same."""
    model, x = attention_model(asks), sequences()
    _, scores = model.get_layer("attention")(x, x, return_attention_scores=True)
    expected = model.predict(x, verbose=0)
    read = FeatureModel(model, ["attention:scores", ":0"]).predict(x, verbose=0)
    np.testing.assert_allclose(
        read["attention:scores"], ops.convert_to_numpy(scores), **SAME
    )
    np.testing.assert_allclose(read[":0"], expected, **SAME)
    assert feature_shape(model, "attention:scores") == (None, 2, STEPS, STEPS)


def test_scores_of_other_attention_layers_are_read():
    inputs = keras.Input((STEPS, WIDTH))
    attended = keras.layers.Attention(name="attention")([inputs, inputs])
    model, x = keras.Model(inputs, attended), sequences()
    scores = features_of(model, x, "attention:scores")["attention:scores"]
    np.testing.assert_allclose(scores.sum(axis=-1), 1.0, rtol=1e-5)
    logits = np.einsum("bqd,bkd->bqk", x, x)
    exact = np.exp(logits - logits.max(-1, keepdims=True))
    np.testing.assert_allclose(scores, exact / exact.sum(-1, keepdims=True), rtol=1e-4)


def test_a_layer_that_attends_nowhere_has_no_scores():
    with pytest.raises(ValueError, match='Tap "lstm:scores" not found'):
        Tap(recurrent(), "lstm:scores")


# Layers inside others


def inner_cnn():
    inputs = keras.Input((WIDTH,))
    hidden = keras.layers.Dense(3, "tanh", name="hidden")(inputs)
    return keras.Model(inputs, keras.layers.Dense(2, name="out")(hidden), name="inner")


def test_a_layer_inside_time_distributed_gives_all_steps():
    inner, x = inner_cnn(), sequences()
    inputs = keras.Input((STEPS, WIDTH))
    wrapped = keras.layers.TimeDistributed(inner, name="steps")
    model = keras.Model(inputs, wrapped(inputs))
    read = FeatureModel(model, ["hidden", "inner", "steps/inner/out#0"]).predict(
        x, verbose=0
    )
    kernel, bias = inner.get_layer("hidden").get_weights()
    np.testing.assert_allclose(read["hidden"], np.tanh(x @ kernel + bias), **SAME)
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(read["inner"], expected, **SAME)
    np.testing.assert_allclose(read["steps/inner/out#0"], expected, **SAME)
    assert feature_shape(model, "hidden") == (None, STEPS, 3)


def test_a_layer_called_twice_in_each_step_needs_the_number_of_a_call():
    inputs = keras.Input((WIDTH,))
    twice = keras.layers.Dense(WIDTH, name="twice")
    inner = keras.Model(inputs, twice(twice(inputs)))
    outer = keras.Input((STEPS, WIDTH))
    model = keras.Model(outer, keras.layers.TimeDistributed(inner)(outer))
    x = sequences()
    with pytest.raises(ValueError, match='2 times in a step. .*"twice#0" to "twice#1"'):
        features_of(model, x, "twice")
    kernel, _ = twice.get_weights()
    features = features_of(model, x, "twice#0", "twice#1")
    np.testing.assert_allclose(features["twice#0"], x @ kernel, **SAME)
    np.testing.assert_allclose(features["twice#1"], x @ kernel @ kernel, **SAME)


def test_a_time_distributed_layer_that_is_called_twice_is_refused_inside():
    steps = keras.layers.TimeDistributed(
        keras.layers.Dense(WIDTH, name="inside"), name="steps"
    )
    inputs = keras.Input((STEPS, WIDTH))
    model = keras.Model(inputs, steps(steps(inputs)))
    with pytest.raises(ValueError, match='was called 2 times .*"steps#0"'):
        features_of(model, sequences(), "inside")


def test_layers_inside_two_time_distributed_layers_are_refused():
    dense = keras.layers.Dense(WIDTH, name="inside")
    inputs = keras.Input((STEPS, WIDTH))
    x = keras.layers.TimeDistributed(dense, name="first")(inputs)
    model = keras.Model(inputs, keras.layers.TimeDistributed(dense, name="next")(x))
    with pytest.raises(ValueError, match='"first", "next".* inside several of them'):
        Tap(model, "inside")


def test_unknown_numbers_of_steps_are_refused_where_keras_maps_over_them():
    """TensorFlow's graphs leave the number open; eager passes know it."""
    inputs = keras.Input((None, WIDTH))
    steps = keras.layers.TimeDistributed(inner_cnn(), name="steps")
    model = keras.Model(inputs, steps(inputs))
    x = sequences()
    reading = FeatureModel(model, ["hidden"])
    if keras.backend.backend() != "tensorflow":
        assert reading.predict(x, verbose=0)["hidden"].shape == (8, STEPS, 3)
        return
    import tensorflow

    compiled = tensorflow.function(
        reading, input_signature=[tensorflow.TensorSpec((None, None, WIDTH))]
    )
    with pytest.raises(ValueError, match="all steps in one mapped call"):
        compiled(x)


def test_a_layer_inside_a_recurrent_layer_is_refused():
    inputs = keras.Input((STEPS, WIDTH))
    cells = [keras.layers.LSTMCell(3, name=f"cell{i}") for i in range(2)]
    outputs = keras.layers.RNN(cells, name="rnn")(inputs)
    model = keras.Model(inputs, outputs)
    with pytest.raises(
        ValueError, match='inside the recurrent layer "rnn".* Tap "rnn"'
    ):
        Tap(model, "cell1")


def test_the_layers_of_a_bidirectional_layer_are_read():
    inputs = keras.Input((STEPS, WIDTH))
    both = keras.layers.Bidirectional(
        keras.layers.GRU(3, return_sequences=True, name="gru"), name="both"
    )
    model, x = keras.Model(inputs, both(inputs)), sequences()
    read = features_of(model, x, "both/forward_gru", "both/backward_gru", "both")
    np.testing.assert_allclose(read["both/forward_gru"], read["both"][..., :3], **SAME)
    # As the layer returned it: it reads the steps backward.
    np.testing.assert_allclose(
        read["both/backward_gru"][:, ::-1], read["both"][..., 3:], **SAME
    )


class Loops(keras.layers.Layer):
    """Calls a layer inside a mapped function or a loop."""

    def __init__(self, how, **kwargs):
        super().__init__(**kwargs)
        self.how = how
        self.inside = keras.layers.Dense(WIDTH, name="inside")

    def build(self, shape):
        self.inside.build(shape)

    def call(self, x):
        if self.how == "mapped":
            return ops.vectorized_map(lambda row: self.inside(row[None])[0], x)
        return ops.fori_loop(0, 3, lambda _, value: self.inside(value), x)


@pytest.mark.parametrize("how", ["mapped", "loop"])
@pytest.mark.parametrize("eagerly", [False, True])
def test_a_layer_inside_a_loop_or_a_mapped_function_is_refused(how, eagerly):
    """Or, where the backend unrolls the loop, called several times."""
    inputs = keras.Input((WIDTH,), batch_size=4)
    model = keras.Model(inputs, Loops(how, name="loops")(inputs))
    reading = FeatureModel(model, ["inside"])
    reading.compile(run_eagerly=eagerly)
    expected = "runs inside a loop or a mapped function|was called 3 times in one"
    with pytest.raises(ValueError, match=expected):
        reading.predict(np.ones((4, WIDTH), "float32"), batch_size=4, verbose=0)
