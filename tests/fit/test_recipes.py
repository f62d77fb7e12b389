"""The recipes: their losses and weights, the layers they pick, and their errors."""

import keras
import numpy as np
import pytest
from small_models import Composite

import keras_dskd


def cnn(channels=3, widths=(4, 6, 8, 8), name="teacher", activation=None):
    x = inputs = keras.Input((16, 16, channels))
    for number, width in enumerate(widths, start=1):
        if number > 1:
            x = keras.layers.MaxPooling2D(name=f"pool{number - 1}")(x)
        x = keras.layers.Conv2D(width, 3, padding="same", name=f"conv{number}")(x)
        x = keras.layers.ReLU(name=f"block{number}")(x)
    x = keras.layers.GlobalAveragePooling2D(name="features")(x)
    x = keras.layers.Dropout(0.1, name="dropout")(x)
    outputs = keras.layers.Dense(3, activation=activation, name="logits")(x)
    return keras.Model(inputs, outputs, name=name)


def student(**kwargs):
    return cnn(channels=1, name="student", **kwargs)


def fit(distiller):
    rng = np.random.default_rng(0)
    x = {
        "teacher": rng.random((8, 16, 16, 3), "float32"),
        "student": rng.random((8, 16, 16, 1), "float32"),
    }
    distiller.compile(
        "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return distiller.fit(x, rng.integers(0, 3, 8), batch_size=4, verbose=0).history


def weights_in_total(distiller, step):
    """The weight of each distillation loss in the total at a step."""
    share = 1 - distiller.student_loss_weight
    return [
        share * float(weight(step) if callable(weight) else weight)
        for weight in distiller.distillation_loss_weights
    ]


def read(distiller):
    return [
        (loss.teacher_layer_name or None, loss.student_layer_name)
        for loss in distiller.distillation_losses
    ]


def test_dskd_picks_and_prints_the_deep_and_a_middle_feature(capsys):
    distiller = keras_dskd.dskd(cnn(), student())
    assert read(distiller) == [(None, None), (None, "features"), (None, "block2")]
    printed = capsys.readouterr().out
    assert "dskd: output_features of the student: features (8)\n" in printed
    assert "dskd: intermediate_features of the student: block2 (8x8x6)\n" in printed


def test_dskd_has_the_weights_of_its_formula():
    distiller = keras_dskd.dskd(cnn(), student(), "features", "block2")
    assert distiller.student_loss_weight == 0.5
    assert weights_in_total(distiller, 500) == pytest.approx([0.5, 0.3, 0.1])
    assert np.isfinite(fit(distiller)["loss"]).all()


def test_dskd_with_teacher_target_projects_features_of_different_width():
    distiller = keras_dskd.dskd(
        cnn(), student(widths=(2, 3, 4, 5)), target="teacher", steps=None
    )
    assert read(distiller)[1] == ("features", "features")
    assert weights_in_total(distiller, 500)[1] == pytest.approx(2.0)
    assert list(distiller.projectors) == ["features"]
    assert np.isfinite(fit(distiller)["loss"]).all()


def test_dskd_with_equal_widths_has_no_projector():
    assert not keras_dskd.dskd(cnn(), student(), target="teacher").projectors


@pytest.mark.parametrize("steps, rise", [(800, 240), (None, 500), (99, 100), (1, 100)])
@pytest.mark.parametrize(
    "recipe, weights",
    [(keras_dskd.dskd, (0.3, 0.1)), (keras_dskd.recommended, (4.0, 4.0))],
)
def test_weights_rise_from_0_over_the_first_steps(recipe, weights, steps, rise):
    distiller = recipe(cnn(), student(), steps=steps)
    for step, share in ((0, 0), (rise // 2, rise // 2 / rise), (rise, 1), (999, 1)):
        rising = [share * weight for weight in weights]
        assert weights_in_total(distiller, step) == pytest.approx([0.5, *rising])


@pytest.mark.parametrize("steps", [-1, "many"])
def test_steps_that_are_no_number_raise(steps):
    with pytest.raises(ValueError, match=f"`steps` must be .*{steps}"):
        keras_dskd.recommended(cnn(), student(), steps=steps)


def test_recommended_aligns_two_middle_stages_through_projectors(capsys):
    distiller = keras_dskd.recommended(cnn(), student(widths=(2, 3, 4, 5)))
    assert read(distiller) == [(None, None), ("block2",) * 2, ("block3",) * 2]
    assert weights_in_total(distiller, 500) == pytest.approx([0.5, 4.0, 4.0])
    printed = capsys.readouterr().out
    assert "intermediate_features of the teacher: block2 (8x8x6), block3 (" in printed
    assert np.isfinite(fit(distiller)["loss"]).all()
    # From the student's 3 and 4 channels to the teacher's 6 and 8.
    shapes = [tuple(p.weights[0].shape) for p in distiller.projectors.values()]
    assert shapes == [(3, 6), (4, 8)]


def u_net(channels, size=16, dims=2, name="student"):
    conv = {1: keras.layers.Conv1D, 2: keras.layers.Conv2D}[dims]
    pool = {1: keras.layers.MaxPooling1D, 2: keras.layers.MaxPooling2D}[dims]
    grow = {1: keras.layers.UpSampling1D, 2: keras.layers.UpSampling2D}[dims]
    x = inputs = keras.Input((*[size] * dims, channels))
    skips = []
    for width in (channels + 1, channels + 3):
        skips.append(conv(width, 3, padding="same", activation="relu")(x))
        x = pool()(skips[-1])
    x = conv(channels + 4, 3, padding="same", activation="relu")(x)
    for skip in skips[::-1]:
        x = keras.layers.Concatenate()([grow()(x), skip])
        x = conv(channels + 1, 3, padding="same", activation="relu")(x)
    return keras.Model(inputs, conv(3, 1)(x), name=name)


@pytest.mark.parametrize("dims", [1, 2])
def test_dense_predictions_are_aligned_at_each_position(dims):
    models = u_net(3, dims=dims, name="teacher"), u_net(1, dims=dims)
    distiller = keras_dskd.recommended(*models)
    rows = [loss.rows for loss in distiller.distillation_losses[1:]]
    assert rows == ["positions", "positions"]
    # From the student's 4 and 5 channels to the teacher's 6 and 7, without positions.
    shapes = [tuple(p.weights[0].shape[-2:]) for p in distiller.projectors.values()]
    assert shapes == [(4, 6), (5, 7)]
    rng = np.random.default_rng(0)
    grid = (16,) * dims
    x = {
        "teacher": rng.random((8, *grid, 3), "float32"),
        "student": rng.random((8, *grid, 1), "float32"),
    }
    distiller.compile(
        "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    y = rng.integers(0, 3, (8, *grid))
    history = distiller.fit(x, y, batch_size=4, verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_grids_that_do_not_match_are_compared_by_their_means():
    distiller = keras_dskd.recommended(u_net(3, 24, name="teacher"), u_net(1))
    rows = [loss.rows for loss in distiller.distillation_losses[1:]]
    assert rows == ["pooled", "pooled"]


def test_a_feature_may_be_a_name_or_a_pair_of_names(capsys):
    distiller = keras_dskd.recommended(
        cnn(), student(), ["block1", ("conv3", "block2")]
    )
    assert read(distiller)[1:] == [("block1", "block1"), ("conv3", "block2")]
    assert not capsys.readouterr().out


def test_a_dense_feature_gets_a_projector_too():
    distiller = keras_dskd.recommended(cnn(), student(), "features")
    assert np.isfinite(fit(distiller)["loss"]).all()


def test_the_output_of_a_model_that_ends_in_softmax_is_read_as_probabilities():
    distiller = keras_dskd.recommended(cnn(activation="softmax"), student())
    soft_targets = distiller.distillation_losses[0]
    assert (soft_targets.teacher_from_logits, soft_targets.student_from_logits) == (
        False,
        True,
    )


def test_layers_of_a_nested_backbone_are_picked_by_path():
    backbone = keras.Sequential(
        [
            keras.Input((16, 16, 1)),
            keras.layers.Conv2D(2, 3, padding="same", name="a"),
            keras.layers.Conv2D(3, 3, 2, padding="same", name="b"),
            keras.layers.Conv2D(4, 3, 2, padding="same", name="c"),
        ],
        name="backbone",
    )
    model = keras.Sequential(
        [
            keras.Input((16, 16, 1)),
            backbone,
            keras.layers.GlobalMaxPooling2D(name="pool"),
            keras.layers.Dense(3),
        ],
        name="student",
    )
    distiller = keras_dskd.dskd(cnn(), model)
    assert read(distiller)[1:] == [(None, "pool"), (None, "backbone/b")]


def test_a_saved_recipe_can_continue_training(tmp_path):
    distiller = keras_dskd.recommended(cnn(), student(widths=(2, 3, 4, 5)))
    fit(distiller)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    assert np.isfinite(fit(loaded)["channel_alignment_1"]).all()


def test_a_feature_of_a_sublayer_gets_a_projector():
    def holding(width, name):
        x = inputs = keras.Input((16, 16, 1))
        x = Composite(width, name="composite")(x)
        x = keras.layers.GlobalAveragePooling2D()(x)
        return keras.Model(inputs, keras.layers.Dense(3)(x), name=name)

    teacher, student = holding(4, "teacher"), holding(5, "student")
    distiller = keras_dskd.recommended(teacher, student, "composite/widen")
    (projector,) = distiller.projectors.values()
    assert tuple(projector.weights[0].shape) == (5, 4)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="subclassed")
        self.hidden = keras.layers.Dense(4, name="hidden")
        self.head = keras.layers.Dense(3, name="head")

    def call(self, x):
        return self.head(self.hidden(keras.ops.mean(x, axis=(1, 2))))


def test_a_subclassed_student_without_named_layers_raises():
    with pytest.raises(ValueError, match="subclassed or not built.*output_features="):
        keras_dskd.dskd(cnn(), Subclassed())


def test_a_subclassed_pair_trains_with_named_layers():
    teacher = Subclassed()
    teacher(np.zeros((1, 16, 16, 3), "float32"))
    distiller = keras_dskd.recommended(teacher, Subclassed(), "hidden")
    assert np.isfinite(fit(distiller)["loss"]).all()


def test_a_model_without_feature_maps_raises():
    mlp = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)], name="mlp")
    with pytest.raises(ValueError, match="no feature maps.*intermediate_features="):
        keras_dskd.recommended(cnn(), mlp)


def test_a_model_without_a_dense_layer_raises():
    fully_convolutional = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(3, 1),
            keras.layers.GlobalMaxPooling2D(),
        ],
        name="convolutions",
    )
    with pytest.raises(ValueError, match="no Dense layer"):
        keras_dskd.dskd(cnn(), fully_convolutional)


def test_feature_maps_of_unknown_size_raise():
    inputs = keras.Input((None, None, 1))
    x = keras.layers.Conv2D(2, 3)(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(3)(x), name="any_size")
    with pytest.raises(ValueError, match="no known size"):
        keras_dskd.dskd(cnn(), model)


def test_too_few_stages_raise():
    with pytest.raises(ValueError, match="2 stages of feature maps are .* has 1"):
        keras_dskd.recommended(cnn(), student(widths=(4,)))


def test_a_misspelled_layer_raises_and_suggests_the_closest_name():
    with pytest.raises(ValueError, match='"blok2" not found.*Did you mean "block2"'):
        keras_dskd.recommended(cnn(), student(), "blok2")


def test_a_feature_of_three_names_raises():
    with pytest.raises(ValueError, match=r"a layer name for both models, or a pair"):
        keras_dskd.recommended(cnn(), student(), [("a", "b", "c")])


def test_a_student_layer_named_twice_raises():
    with pytest.raises(ValueError, match="can read each layer of the student once"):
        keras_dskd.recommended(
            cnn(), student(), [("block2", "block2"), ("block3", "block2")]
        )


def test_an_empty_list_of_intermediate_features_raises():
    with pytest.raises(ValueError, match="at least one feature"):
        keras_dskd.recommended(cnn(), student(), [])


def test_an_unknown_layer_of_the_teacher_raises():
    with pytest.raises(ValueError, match='"nope" not found in model "teacher"'):
        keras_dskd.recommended(cnn(), student(), [("nope", "block2")])


def test_gates_of_a_single_position_are_not_a_stage(capsys):
    """As in squeeze-and-excitation networks."""
    x = inputs = keras.Input((16, 16, 1))
    for number in (1, 2, 3):
        x = keras.layers.Conv2D(4, 3, 2, padding="same", name=f"conv{number}")(x)
        gate = keras.layers.GlobalAveragePooling2D(keepdims=True)(x)
        gate = keras.layers.Conv2D(4, 1, activation="sigmoid", name=f"g{number}")(gate)
        x = keras.layers.Multiply(name=f"stage{number}")([x, gate])
    x = keras.layers.GlobalAveragePooling2D()(x)
    gated = keras.Model(inputs, keras.layers.Dense(3)(x), name="gated")
    distiller = keras_dskd.recommended(cnn(), gated)
    assert [pair[1] for pair in read(distiller)[1:]] == ["stage2", "stage3"]
