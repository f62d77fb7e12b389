"""Taps: features by layer name, from the forward pass that makes the prediction."""

import threading
import warnings

import keras
import numpy as np
import pytest
from keras import ops
from small_models import Composite, Subclassed, mlp, rows

from keras_dskd.features.feature_model import FeatureModel
from keras_dskd.features.finding import find_layer
from keras_dskd.features.layer_graph import layer_paths
from keras_dskd.features.taps import OUTPUT, Tap, capture

# The same operations are compiled into different programs, which may add float32
# numbers in another order.
SAME = {"rtol": 1e-5, "atol": 1e-6}


def features_of(model, x, *names):
    with capture([Tap(model, name) for name in names]) as features:
        model(x, training=False)
    return {name: ops.convert_to_numpy(value) for name, value in features.items()}


def plain_feature(model, layer_output, x):
    return keras.Model(model.inputs, layer_output).predict(x, verbose=0)


def nested_functional():
    inputs = keras.Input((4,))
    x = keras.layers.Dense(5, "relu", name="stem")(inputs)
    inner = keras.Model(inputs, keras.layers.Dense(6, name="conv")(x), name="inner")
    outer_inputs = keras.Input((4,))
    y = inner(outer_inputs)
    return keras.Model(outer_inputs, keras.layers.Dense(3, name="logits")(y))


def two_stages():
    def stage(width, name):
        inputs = keras.Input((width,))
        x = keras.layers.Dense(4, name="conv1")(inputs)
        return keras.Model(inputs, keras.layers.ReLU(name="relu")(x), name=name)

    inputs = keras.Input((4,))
    x = stage(4, "stage2")(stage(4, "stage1")(inputs))
    backbone = keras.Model(inputs, x, name="backbone")
    outer = keras.Input((4,))
    return keras.Model(outer, backbone(outer), name="student")


def shared_head():
    head = keras.layers.Dense(4, name="head")
    inputs = keras.Input((4,))
    first = head(inputs)
    return keras.Model(inputs, head(keras.layers.ReLU(name="relu")(first))), first


# Finding


def test_a_unique_name_finds_a_layer_of_a_functional_model():
    model = mlp(4)
    assert find_layer(model, "hidden") is model.get_layer("hidden")


def test_a_unique_name_finds_a_layer_of_a_nested_model():
    model = nested_functional()
    assert find_layer(model, "conv") is model.get_layer("inner").get_layer("conv")


def test_a_path_and_the_end_of_a_path_find_the_same_layer():
    model = two_stages()
    stage = model.get_layer("backbone").get_layer("stage2")
    expected = stage.get_layer("conv1")
    assert find_layer(model, "backbone/stage2/conv1") is expected
    assert find_layer(model, "stage2/conv1") is expected


def test_a_whole_path_takes_precedence_over_the_end_of_a_longer_path():
    inputs = keras.Input((4,))
    inner = keras.Model(inputs, keras.layers.Dense(4, name="dense")(inputs), name="in")
    outer = keras.Input((4,))
    x = keras.layers.Dense(4, name="dense")(inner(outer))
    model = keras.Model(outer, x)
    assert find_layer(model, "dense") is model.get_layer("dense")
    assert find_layer(model, "in/dense") is inner.get_layer("dense")


def test_layers_are_found_in_sequential_subclassed_and_composite_models():
    sequential = keras.Sequential([keras.layers.Dense(2, name="a"), Composite()])
    subclassed = Subclassed()
    composite = sequential.layers[1]
    assert find_layer(sequential, "a") is sequential.layers[0]
    assert find_layer(subclassed, "hidden") is subclassed.hidden
    assert find_layer(sequential, "squeeze") is composite.squeeze
    assert find_layer(sequential, f"{composite.name}/widen") is composite.widen


def test_a_layer_reachable_by_two_paths_is_not_ambiguous():
    model = Subclassed()
    model.again = [model.hidden]
    assert find_layer(model, "hidden") is model.hidden


def test_an_unknown_name_raises_and_suggests_the_closest_names():
    model = two_stages()
    expected = (
        r'Tap "stage3/conv1" not found in model "student"\. '
        r'Did you mean .*"backbone/stage\d/conv1"'
    )
    with pytest.raises(ValueError, match=expected):
        Tap(model, "stage3/conv1")
    with pytest.raises(ValueError, match='Did you mean "hidden"\\?'):
        Tap(mlp(4), "hiden")


def test_a_name_close_to_no_layer_raises_and_lists_the_layers():
    with pytest.raises(ValueError, match="Its layers are: .*hidden, logits"):
        Tap(mlp(4), "zzz")


def test_an_ambiguous_name_raises_and_lists_the_paths():
    expected = (
        r'Tap "conv1" is ambiguous in model "student": 2 layers have this name\. '
        r'Use a path: "backbone/stage1/conv1", "backbone/stage2/conv1"\.'
    )
    with pytest.raises(ValueError, match=expected):
        Tap(two_stages(), "conv1")


def test_a_call_that_is_not_a_number_raises():
    with pytest.raises(
        ValueError, match='must be a number counted from 0, as in "hidden#0"'
    ):
        Tap(mlp(4), "hidden#last")


def test_layer_paths_lists_every_layer_once_if_none_is_shared():
    paths = ["/".join(path) for path, _ in layer_paths(two_stages())]
    dense = [path for path in paths if path.endswith("conv1")]
    assert dense == ["backbone/stage1/conv1", "backbone/stage2/conv1"]
    assert len(paths) == len(set(paths))


# Values


def test_a_feature_is_what_a_model_that_ends_there_predicts():
    model, x = mlp(4), rows(width=4)
    expected = plain_feature(model, model.get_layer("hidden").output, x)
    np.testing.assert_allclose(
        features_of(model, x, "hidden")["hidden"], expected, **SAME
    )


def test_a_feature_of_a_nested_model_is_what_that_model_predicts():
    model, x = nested_functional(), rows(width=4)
    inner = model.get_layer("inner")
    features = features_of(model, x, "inner/conv", "stem", "inner")
    expected = inner.predict(x, verbose=0)
    np.testing.assert_allclose(features["inner/conv"], expected, **SAME)
    np.testing.assert_allclose(features["inner"], expected, **SAME)
    stem = plain_feature(inner, inner.get_layer("stem").output, x)
    np.testing.assert_allclose(features["stem"], stem, **SAME)


def test_features_of_sequential_subclassed_and_composite_models_are_layer_outputs():
    x = rows(width=4)
    sequential = keras.Sequential([keras.layers.Dense(3, name="a"), Composite()])
    subclassed = Subclassed()
    sequential(x), subclassed(x)
    composite = sequential.layers[1]

    features = features_of(sequential, x, "a", "squeeze")
    first = x @ sequential.layers[0].get_weights()[0]
    np.testing.assert_allclose(features["a"], first, **SAME)
    squeezed = first @ composite.squeeze.get_weights()[0]
    np.testing.assert_allclose(features["squeeze"], squeezed, **SAME)

    kernel, bias = subclassed.hidden.get_weights()
    hidden = features_of(subclassed, x, "hidden")["hidden"]
    np.testing.assert_allclose(hidden, np.tanh(x @ kernel + bias), **SAME)


def test_each_call_of_a_shared_layer_can_be_tapped_by_number():
    (model, first), x = shared_head(), rows(width=4)
    features = features_of(model, x, "head#0", "head#1")
    np.testing.assert_allclose(
        features["head#0"], plain_feature(model, first, x), **SAME
    )
    np.testing.assert_allclose(features["head#1"], model.predict(x, verbose=0), **SAME)


def test_a_shared_layer_without_the_number_of_a_call_raises():
    model, _ = shared_head()
    expected = 'was called 2 times in one forward pass.*"head#0" to "head#1"'
    with pytest.raises(ValueError, match=expected):
        features_of(model, rows(width=4), "head")


def test_a_call_number_that_is_too_large_raises():
    model, _ = shared_head()
    expected = 'was called 2 times in one forward pass. Received: "head#2"'
    with pytest.raises(ValueError, match=expected):
        features_of(model, rows(width=4), "head#2")


def test_a_layer_that_is_not_called_raises():
    model = Subclassed()
    model.unused = keras.layers.Identity(name="unused")
    with pytest.raises(ValueError, match='"unused" .* was not called in the forward'):
        features_of(model, rows(width=4), "unused")


def test_fit_and_predict_see_the_features_of_an_eager_pass():
    """Both compiled and with `run_eagerly`."""

    class ReadsHidden(keras.Model):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def call(self, inputs):
            with capture([Tap(self.model, "hidden")]) as features:
                self.model(inputs)
            return features["hidden"]

    x = rows(width=4)
    for eagerly in (False, True):
        model = mlp(4)
        model.get_layer("logits").trainable = False
        expected = features_of(model, x, "hidden")["hidden"]
        reader = ReadsHidden(model)
        reader.compile("sgd", "mse", run_eagerly=eagerly)
        np.testing.assert_allclose(reader.predict(x, verbose=0), expected, **SAME)
        # The gradient flows through the tapped feature. With a target of twice the
        # feature, the loss is mean(hidden²).
        history = reader.fit(x, 2 * expected, verbose=0, epochs=2)
        first, second = history.history["loss"]
        assert first == pytest.approx(np.mean(expected**2), rel=1e-5)  # float32 mean
        assert second < first


def test_a_feature_model_predicts_named_features_and_the_final_output():
    model, x = mlp(4), rows(20, width=4)
    features = FeatureModel(model, ["hidden", OUTPUT]).predict(
        x, batch_size=8, verbose=0
    )
    hidden = plain_feature(model, model.get_layer("hidden").output, x)
    np.testing.assert_allclose(features["hidden"], hidden, **SAME)
    np.testing.assert_allclose(features[OUTPUT], model.predict(x, verbose=0), **SAME)


# Cleaning up


def test_the_recorder_is_removed_after_the_pass():
    model = mlp(4)
    layer = model.get_layer("hidden")
    before = set(vars(layer))
    features_of(model, rows(width=4), "hidden")
    assert set(vars(layer)) == before
    assert "call" not in vars(layer)
    assert layer.call.__func__ is keras.layers.Dense.call


def test_the_recorder_is_removed_after_an_exception():
    model = mlp(4)
    layer = model.get_layer("hidden")
    with pytest.raises(RuntimeError, match="in the middle"):
        with capture([Tap(model, "hidden")]):
            assert "call" in vars(layer)
            raise RuntimeError("in the middle")
    assert "call" not in vars(layer)


def test_the_recorder_is_removed_after_an_exception_in_the_layer():
    class Breaks(keras.layers.Layer):
        def call(self, inputs):
            raise RuntimeError("broken layer")

    layer = Breaks(name="breaks")
    model = Subclassed()
    model.hidden = layer
    with pytest.raises(RuntimeError, match="broken layer"):
        features_of(model, rows(width=4), "breaks")
    assert "call" not in vars(layer)


def test_nested_captures_both_see_the_pass():
    model, x = mlp(4), rows(width=4)
    expected = features_of(model, x, "hidden")["hidden"]
    layer = model.get_layer("hidden")
    with capture([Tap(model, "hidden")]) as outer:
        with capture([Tap(model, "hidden"), Tap(model, "logits")]) as inner:
            model(x)
        assert "call" in vars(layer)
    assert "call" not in vars(layer)
    for features in (outer, inner):
        hidden = ops.convert_to_numpy(features["hidden"])
        np.testing.assert_allclose(hidden, expected, **SAME)
    assert set(inner) == {"hidden", "logits"}


def test_a_second_pass_within_a_capture_counts_as_a_second_call():
    model, x = mlp(4), rows(width=4)
    with pytest.raises(ValueError, match="was called 2 times in one forward pass"):
        with capture([Tap(model, "hidden")]):
            with capture([Tap(model, "hidden")]):
                model(x)
            model(x)
    assert "call" not in vars(model.get_layer("hidden"))


def test_a_call_set_on_the_instance_is_restored():
    model, x = mlp(4), rows(width=4)
    layer = model.get_layer("hidden")
    own = layer.call

    def doubled(inputs, training=None):
        return 2 * own(inputs)

    layer.call = doubled
    features = features_of(model, x, "hidden")
    assert layer.call is doubled
    del layer.call
    plain = features_of(model, x, "hidden")["hidden"]
    np.testing.assert_allclose(features["hidden"], 2 * plain, **SAME)


def test_each_thread_captures_its_own_pass():
    model = mlp(4)
    inputs = {seed: rows(width=4, seed=seed) for seed in (1, 2)}
    expected = {s: features_of(model, x, "hidden")["hidden"] for s, x in inputs.items()}
    together = threading.Barrier(2)
    captured = {}

    def run(seed):
        for _ in range(5):
            with capture([Tap(model, "hidden")]) as features:
                together.wait(timeout=30)
                model(inputs[seed])
                together.wait(timeout=30)
            captured.setdefault(seed, []).append(
                ops.convert_to_numpy(features["hidden"])
            )

    threads = [threading.Thread(target=run, args=(seed,)) for seed in inputs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in inputs:
        assert len(captured[seed]) == 5
        for hidden in captured[seed]:
            np.testing.assert_allclose(hidden, expected[seed], **SAME)
    assert "call" not in vars(model.get_layer("hidden"))


def test_a_quantized_layer_is_tapped():
    model = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(4, name="hidden"), keras.layers.Dense(2)]
    )
    for layer in model.layers:
        layer.quantize("int8")
    features = features_of(model, rows(3, 8), "hidden")
    np.testing.assert_allclose(
        features["hidden"],
        ops.convert_to_numpy(model.get_layer("hidden")(rows(3, 8))),
        **SAME,
    )
    assert "quantized_call" not in vars(model.get_layer("hidden"))


def test_a_whole_path_takes_precedence_if_the_layer_has_a_second_path():
    inputs = keras.Input((4,))
    shared = keras.layers.Dense(4, name="c")
    inner = keras.Sequential([keras.Input((4,)), shared], name="inner")
    other = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(4, name="c")], name="other"
    )
    model = keras.Model(inputs, other(inner(shared(inputs))))
    assert find_layer(model, "c") is shared


# Models of other libraries


def import_quietly(name):
    with warnings.catch_warnings():
        # Their imports cause deprecation warnings.
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=f"{name} is not installed")


def test_a_keras_cv_classifier_is_tapped_by_layer_path():
    keras_cv = import_quietly("keras_cv")
    backbone = keras_cv.models.ResNetBackbone(
        stackwise_filters=[64],
        stackwise_blocks=[1],
        stackwise_strides=[1],
        include_rescaling=False,
        input_shape=(16, 16, 3),
        block_type="basic_block",
    )
    model = keras_cv.models.ImageClassifier(backbone=backbone, num_classes=3)
    x = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype("float32")
    name = backbone.layers[-3].name
    expected = plain_feature(backbone, backbone.get_layer(name).output, x)
    features = features_of(model, x, name, f"{backbone.name}/{name}")
    for feature in features.values():
        np.testing.assert_allclose(feature, expected, **SAME)


def test_a_keras_hub_classifier_is_tapped_by_layer_path():
    keras_hub = import_quietly("keras_hub")
    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64],
        stackwise_num_blocks=[1],
        stackwise_num_strides=[1],
        block_type="basic_block",
        use_pre_activation=True,
        image_shape=(16, 16, 3),
    )
    model = keras_hub.models.ResNetImageClassifier(backbone=backbone, num_classes=3)
    x = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype("float32")
    name = backbone.layers[-3].name
    expected = plain_feature(backbone, backbone.get_layer(name).output, x)
    features = features_of(model, x, name, f"{backbone.name}/{name}")
    for feature in features.values():
        np.testing.assert_allclose(feature, expected, **SAME)


def test_a_rematerialized_layer_raises():
    """Otherwise JAX and TensorFlow would report a leaked tensor."""
    inputs = keras.Input((4,))
    with keras.RematScope(mode="full"):
        hidden = keras.layers.Dense(3, name="hidden")(inputs)
    outputs = keras.layers.Dense(2, name="logits")(hidden)
    model = keras.Model(inputs, outputs, name="net")
    assert Tap(model, "logits").name == "logits"
    with pytest.raises(ValueError, match='"hidden" was made within a keras.RematScope'):
        Tap(model, "hidden")
    holder = keras.Sequential([keras.Input((4,)), model], name="holder")
    with pytest.raises(ValueError, match="RematScope"):
        Tap(holder, "net/hidden")
