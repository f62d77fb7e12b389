"""Pyramid levels, and the layers that recipes pick."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops
from small_models import CLASSES, Subclassed, crossentropy, images, labels

import keras_dskd
from keras_dskd.features import pyramid
from keras_dskd.features.feature_model import FeatureModel
from keras_dskd.features.finding import find_layer
from keras_dskd.features.landmarks import head_input, stage_ends
from keras_dskd.features.taps import Tap

# Compiled into different programs, float32 sums may be taken in another order.
SAME = {"rtol": 1e-5, "atol": 1e-6}


def conv(x, width=4, strides=1, name=None, kernel=3, padding="same"):
    return layers.Conv2D(width, kernel, strides, padding=padding, name=name)(x)


def classifier(inputs, x, name="student"):
    x = layers.GlobalAveragePooling2D(name="gap")(x)
    return keras.Model(inputs, layers.Dense(CLASSES, name="logits")(x), name=name)


def cnn(channels=1, names=("a", "b", "c", "d"), name="student", size=16):
    """A network with strides 1, 2, 4 and 8."""
    x = inputs = keras.Input((size, size, channels))
    for number, layer_name in enumerate(names):
        x = conv(x, 4 + number, 1 + (number > 0), layer_name)
    return classifier(inputs, x, name)


def with_pyramid(name, channels=1):
    """A backbone that declares levels as backbones of keras_hub do."""
    x = inputs = keras.Input((16, 16, channels))
    declared = {}
    for number in (1, 2, 3):
        x = conv(x, 2 + number, 2, f"conv{number}")
        declared[f"P{number}"] = x
        x = layers.ReLU(name=f"relu{number}")(x)
    model = keras.Model(inputs, x, name=name)
    model.pyramid_outputs = declared
    return model


def value(model, name, x):
    return ops.convert_to_numpy(FeatureModel(model, [name])(x)[name])


def plain_value(model, tensor, x):
    return ops.convert_to_numpy(keras.Model(model.input, tensor)(x, training=False))


# Levels by stride


def test_levels_of_a_plain_model_are_the_ends_of_its_stages():
    model = cnn()
    for level, name in {"P0": "a", "P1": "b", "P2": "c", "P3": "d"}.items():
        assert find_layer(model, level) is model.get_layer(name)
    assert value(model, "P3", images(2, 1, 16)).shape == (2, 2, 2, 7)


def test_an_unknown_level_raises_and_lists_the_levels():
    with pytest.raises(ValueError, match='"P9" not found in.*"P0", "P1", "P2"'):
        Tap(cnn(), "P9")


def test_a_layer_named_like_a_level_takes_precedence():
    model = cnn(names=("a", "P3", "c", "d"))
    assert find_layer(model, "P3") is model.get_layer("P3")
    assert find_layer(model, "P2") is model.get_layer("c")


def test_a_level_of_a_nested_model_is_found_with_and_without_a_path():
    whole = cnn()
    inner = keras.Model(whole.input, whole.get_layer("d").output, name="net")
    inputs = keras.Input((16, 16, 1))
    model = classifier(inputs, inner(inputs))
    x = images(2, 1, 16)
    expected = plain_value(inner, inner.get_layer("c").output, x)
    for name in ("P2", "net/P2", "net/c"):
        np.testing.assert_allclose(value(model, name, x), expected, **SAME)
    with pytest.raises(ValueError, match='"nett" not found.*Did you mean "net"'):
        Tap(model, "nett/P2")


def test_convolutions_without_padding_do_not_start_a_stage():
    """As in Xception and Inception: sizes 33 and 31 have stride 2, size 16 stride 4."""
    x = inputs = keras.Input((67, 67, 1))
    x = conv(x, 2, 2, "a", padding="valid")
    x = conv(x, 2, 1, "b", padding="valid")
    x = conv(x, 2, 2, "c")
    model = classifier(inputs, x)
    assert [model.get_layer(n).output.shape[1] for n in "abc"] == [33, 31, 16]
    assert stage_ends(model) == ["b", "c"]
    assert find_layer(model, "P1").name == "b"


def test_patches_of_four_pixels_are_level_2():
    inputs = keras.Input((16, 16, 1))
    model = classifier(inputs, conv(inputs, 2, 4, "patches", kernel=4))
    assert find_layer(model, "P2").name == "patches"


def test_padding_and_input_normalization_do_not_end_a_stage():
    x = inputs = keras.Input((8, 8, 1))
    x = layers.Normalization(mean=0.0, variance=1.0)(x)
    x = layers.Rescaling(1 / 255)(x)
    x = layers.ReLU(name="a")(conv(x, 2, 2))
    x = layers.ZeroPadding2D(1)(x)
    x = conv(x, 2, 2, "b", padding="valid")
    assert stage_ends(classifier(inputs, x)) == ["a", "b"]


def test_a_stage_ends_before_a_block_whose_second_layer_has_the_stride():
    """As in the last block of each stage of ResNetV2."""
    x = inputs = keras.Input((8, 8, 1))
    x = conv(x, 4, 2, "stem")
    x = layers.Add(name="block1")([x, conv(x)])
    inner = layers.ReLU()(conv(layers.ReLU()(x), 2, kernel=1))
    x = layers.Add(name="block2")([layers.MaxPooling2D(1, 2)(x), conv(inner, 4, 2)])
    model = classifier(inputs, x)
    assert stage_ends(model) == ["block1", "block2"]
    assert [find_layer(model, level).name for level in ("P1", "P2")] == [
        "block1",
        "block2",
    ]


def test_a_stage_may_end_in_an_addition_that_is_not_a_layer():
    """As in ConvNeXt."""
    x = inputs = keras.Input((8, 8, 1))
    x = conv(x, 4, 2)
    x = x + conv(x)
    middle = x
    x = conv(x, 4, 2)
    x = x + conv(x)
    model = classifier(inputs, x)
    data = images(2, 1, 8)
    expected = plain_value(model, middle, data)
    assert np.ptp(expected) > 0
    for name in ("P1", stage_ends(model)[0]):
        np.testing.assert_allclose(value(model, name, data), expected, **SAME)
    history = fit(keras_dskd.recommended(with_pyramid_classifier(), model), 8)
    assert np.isfinite(history["loss"]).all()


def test_a_vector_input_beside_the_image_hides_no_stage():
    image, facts = keras.Input((8, 8, 1)), keras.Input((3,))
    x = conv(conv(image, 4, 2, "a"), 4, 2, "b")
    x = layers.Concatenate()([facts, layers.GlobalAveragePooling2D()(x)])
    model = keras.Model([facts, image], layers.Dense(CLASSES)(x))
    assert stage_ends(model) == ["a", "b"]


def test_feature_maps_of_one_of_two_towers_are_not_a_stage():
    image = keras.Input((8, 8, 1))
    towers = [layers.GlobalAveragePooling2D()(conv(image, 4, 2)) for _ in range(2)]
    model = keras.Model(image, layers.Dense(CLASSES)(layers.Add()(towers)))
    with pytest.raises(ValueError, match="none that every path to its output passes"):
        stage_ends(model)


def test_the_deepest_of_several_outputs_decides_the_stages():
    image = keras.Input((8, 8, 1))
    a = conv(image, 4, 2, "a")
    b = conv(a, 4, 2, "b")
    early = layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(a))
    late = layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(b))
    assert stage_ends(keras.Model(image, [early, late])) == ["a", "b"]


def test_a_level_of_two_stages_raises():
    x = inputs = keras.Input((8, 8, 1))
    x = conv(conv(x, 2, 1, "a"), 2, 2, "b")
    x = conv(layers.UpSampling2D()(x), 2, 1, "c")
    with pytest.raises(ValueError, match='the same size: they end in "a" and "c"'):
        Tap(classifier(inputs, x), "P0")


def test_strides_that_differ_by_axis_are_not_a_level():
    x = inputs = keras.Input((8, 8, 1))
    x = conv(conv(x, 2, 2, "a"), 2, (1, 2), "b")
    with pytest.raises(ValueError, match='pyramid levels are: "P1"'):
        Tap(classifier(inputs, x), "P2")


def test_a_model_without_levels_says_so():
    x = inputs = keras.Input((8, 8, 1))
    x = conv(x, 2, (1, 2), "a")
    with pytest.raises(ValueError, match="no pyramid levels. Name a layer"):
        Tap(classifier(inputs, x), "P1")


def test_tokens_are_not_a_level_of_an_image_model():
    x = inputs = keras.Input((8, 8, 1))
    x = layers.Reshape((4, 2))(conv(x, 2, 4, "patches"))
    x = layers.Dense(2, name="tokens")(x)
    x = layers.GlobalAveragePooling1D()(x)
    model = keras.Model(inputs, layers.Dense(CLASSES)(x), name="tokens")
    assert stage_ends(model) == ["patches", "tokens"]
    assert list(pyramid.levels(model)) == ["P2"]


def test_models_without_known_levels_raise_with_the_reason():
    any_size = keras.Input((None, None, 1))
    model = classifier(any_size, conv(any_size))
    with pytest.raises(ValueError, match="no known size.*Give its input a fixed size"):
        Tap(model, "P1")
    with pytest.raises(
        ValueError, match='"P1" not found in model "net".*subclassed or not'
    ):
        Tap(Subclassed(name="net"), "P1")
    first, second = keras.Input((8, 8, 1)), keras.Input((4, 4, 1))
    x = layers.Add()([conv(first, 2, 2), conv(second, 2)])
    with pytest.raises(ValueError, match="inputs of 'student' have different sizes"):
        Tap(classifier([first, second], x), "P1")


def test_levels_respect_the_image_data_format():
    keras.config.set_image_data_format("channels_first")
    try:
        inputs = keras.Input((3, 8, 16))
        model = classifier(inputs, conv(conv(inputs, 4, 2, "a"), 8, 2, "b"))
        assert list(pyramid.levels(model)) == ["P1", "P2"]
        assert stage_ends(model) == ["a", "b"]
    finally:
        keras.config.set_image_data_format("channels_last")


# Declared levels


def with_pyramid_classifier(name="teacher"):
    inputs = keras.Input((16, 16, 1))
    return classifier(inputs, with_pyramid("backbone")(inputs), name)


def test_declared_levels_take_precedence():
    model = with_pyramid_classifier()
    x = images(2, 1, 16)
    backbone = model.get_layer("backbone")
    expected = plain_value(backbone, backbone.pyramid_outputs["P2"], x)
    assert np.min(expected) < 0  # The declared output is before the ReLU.
    for name in ("P2", "backbone/P2"):
        np.testing.assert_allclose(value(model, name, x), expected, **SAME)
    assert stage_ends(model) == ["backbone/P1", "backbone/P2", "backbone/P3"]
    with pytest.raises(ValueError, match='"backbone/P1", "backbone/P2"'):
        Tap(model, "P0")


def test_a_level_of_two_backbones_needs_a_path():
    inputs = keras.Input((16, 16, 1))
    x = layers.Add()([with_pyramid(name)(inputs) for name in ("left", "right")])
    model = classifier(inputs, x)
    with pytest.raises(ValueError, match='Use a path: "left/P2", "right/P2"'):
        Tap(model, "P2")
    x = images(2, 1, 16)
    left = model.get_layer("left")
    np.testing.assert_allclose(
        value(model, "left/P2", x),
        plain_value(left, left.pyramid_outputs["P2"], x),
        **SAME,
    )


def test_a_backbone_that_is_called_twice_needs_the_number_of_a_call():
    backbone = with_pyramid("backbone")
    first, second = keras.Input((16, 16, 1)), keras.Input((16, 16, 1))
    model = classifier(
        [first, second], layers.Add()([backbone(first), backbone(second)])
    )
    x = [images(2, 1, 16, seed=seed) for seed in (0, 1)]
    with pytest.raises(ValueError, match='"P2#0" to "P2#1"'):
        value(model, "P2", x)
    expected = plain_value(backbone, backbone.pyramid_outputs["P2"], x[1])
    np.testing.assert_allclose(value(model, "P2#1", x), expected, **SAME)


@keras.saving.register_keras_serializable(package="tests")
class Encoder(layers.Layer):
    """Returns tokens and a dict of earlier tokens, as the DINO encoder of keras_hub."""

    def call(self, x):
        return x + 3.0, {"stage1": x + 1.0, "stage2": x + 2.0}


def test_a_level_may_be_one_of_several_outputs_of_a_layer():
    inputs = keras.Input((4, 2))
    x, on_the_way = Encoder()(inputs)
    model = keras.Model(inputs, x, name="net")
    model.pyramid_outputs = {"stem": inputs, **on_the_way}
    x = np.zeros((2, 4, 2), "float32")
    assert np.all(value(model, "stage2", x) == 2.0)
    assert stage_ends(model) == ["stem", "stage1", "stage2"]


def fit(distiller, size=16, callbacks=()):
    distiller.compile("adam", crossentropy())
    teacher_size = distiller.teacher.input_shape[1]
    x = {"teacher": images(8, 1, teacher_size), "student": images(8, 1, size)}
    return distiller.fit(
        x, labels(8), batch_size=4, verbose=0, callbacks=list(callbacks)
    ).history


def test_a_level_works_wherever_a_layer_name_does(tmp_path, capsys):
    teacher, student = with_pyramid_classifier(), cnn()
    distiller = keras_dskd.Distiller(
        teacher,
        student,
        [
            keras_dskd.losses.FitNet("P2", "P2", rows="positions"),
            keras_dskd.losses.ChannelAlignment("backbone/P3", "P1"),
        ],
        projectors={"P2": layers.Dense(4), "P1": layers.Dense(5)},
    )
    watched = keras_dskd.StructureHistory(images(8, 1, 16), ["P3"])
    assert any("P3" in name for name in fit(distiller, callbacks=[watched]))
    assert distiller.cache_teacher(images(8, 1, 16))["P2"].shape == (8, 4, 4, 4)
    lit = (
        images(64, 1, 16) + np.linspace(-9, 9, 64, dtype="float32")[:, None, None, None]
    )
    pairs = {"teacher": lit, "student": lit}
    keras_dskd.check_pairs(
        teacher,
        student,
        pairs,
        teacher_layer_name="P3",
        student_layer_name="P3",
        permutations=99,
    )
    assert list(keras_dskd.structure_report(student, pairs["student"], ["P1"]).layers)
    distiller.save(tmp_path / "distiller.keras")
    # A plain Functional model loses its declared levels when saved. Its stages remain.
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    assert "backbone/P3" in [t.teacher_layer_name for t in loaded.distillation_losses]
    assert Tap(loaded.student, "P1").layer.name == "b"


def test_recipes_pick_declared_levels(capsys):
    teacher = with_pyramid_classifier()
    distiller = keras_dskd.recommended(teacher, cnn())
    printed = capsys.readouterr().out
    assert "of the teacher: backbone/P2 (4x4x4), backbone/P3 (2x2x5)\n" in printed
    # From the student's 5 and 6 channels to the teacher's 4 and 5.
    shapes = [tuple(p.weights[0].shape) for p in distiller.projectors.values()]
    assert shapes == [(5, 4), (6, 5)]
    assert np.isfinite(fit(distiller)["loss"]).all()


# The deep feature


def test_the_head_may_be_a_convolution_of_a_single_position():
    """As in MobileNet, where gates are convolutions of a single position, too."""
    x = inputs = keras.Input((8, 8, 1))
    x = conv(x, 4, 2)
    gate = conv(layers.GlobalAveragePooling2D(keepdims=True)(x), 4, kernel=1)
    x = layers.Multiply(name="gated")([x, gate])
    headless = keras.Model(inputs, x, name="headless")
    with pytest.raises(ValueError, match="no Dense layer"):
        head_input(headless)
    x = layers.GlobalAveragePooling2D(keepdims=True, name="pooled")(x)
    x = layers.Flatten()(conv(layers.Dropout(0.1)(x), CLASSES, kernel=1))
    assert head_input(keras.Model(inputs, x)) == "pooled"


# Models of other libraries


def imported(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Their imports cause deprecation warnings.
        return pytest.importorskip(name, reason=f"{name} is not installed")


def hub_classifier(keras_hub):
    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 8],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        image_shape=(None, None, 3),
    )
    return keras_hub.models.ImageClassifier(backbone=backbone, num_classes=CLASSES)


def cv_classifier(keras_cv):
    backbone = keras_cv.models.ResNetV2Backbone(
        stackwise_filters=[4, 8],
        stackwise_blocks=[2, 2],
        stackwise_strides=[1, 2],
        include_rescaling=False,
        input_shape=(None, None, 3),
    )
    return keras_cv.models.ImageClassifier(backbone, CLASSES, activation=None)


@pytest.mark.parametrize(
    ("library", "make"), [("keras_hub", hub_classifier), ("keras_cv", cv_classifier)]
)
def test_levels_of_backbones_of_other_libraries(library, make, tmp_path):
    model = make(imported(library))
    backbone, x = model.backbone, images(2, 3, 16)
    level_3 = (
        backbone.pyramid_outputs["P3"]
        if library == "keras_hub"
        else backbone.get_layer(backbone.pyramid_level_inputs["P3"]).output
    )
    expected = plain_value(backbone, level_3, x)
    assert expected.shape[1:3] == (2, 2)  # Stride 8.
    for name in ("P3", f"{backbone.name}/P3"):
        np.testing.assert_allclose(value(model, name, x), expected, **SAME)
    assert stage_ends(model) == [f"{backbone.name}/{level}" for level in ("P2", "P3")]
    model.save(tmp_path / "model.keras")
    # With `compile=True`, classifiers of keras_hub warn that they override `compile`.
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_allclose(value(loaded, "P3", x), expected, **SAME)


def test_levels_of_keras_applications():
    options = {"weights": None, "input_shape": (64, 64, 3), "classes": CLASSES}
    mobilenet = keras.applications.MobileNetV3Small(**options)
    shapes = [find_layer(mobilenet, f"P{k}").output.shape[1:3] for k in (1, 2, 3, 4, 5)]
    assert shapes == [(32, 32), (16, 16), (8, 8), (4, 4), (2, 2)]
    assert find_layer(mobilenet, head_input(mobilenet)).output.shape[1:3] == (1, 1)
