"""Losses of other published methods, each thin over its formula in `ops`."""

import keras
import numpy as np
import pytest
import reference
from gradients import value_and_gradient
from stock_distiller import distillation_loss_of_an_epoch, model

import keras_dskd
from keras_dskd import losses

MAPS = reference.samples(6, 2, 2, 4), reference.samples(6, 2, 2, 4, seed=1)
LABELS = np.array([0, 1, 2, 0, 3, 1])


def pooled(formula, *arguments):
    return lambda t, s: formula(reference.rows(t), reference.rows(s), *arguments)


def positions(t, s):
    return reference.standardized_distance(
        reference.rows(t, "positions"), reference.rows(s, "positions")
    )


def relations(t, s):
    t, s = reference.rows(t), reference.rows(s)
    return 25 * reference.relational_distance(t, s) + 50 * reference.relational_angle(
        t, s
    )


CASES = {
    "fitnet": (losses.FitNet(), pooled(reference.standardized_distance)),
    "fitnet_epsilon": (
        losses.FitNet(epsilon=0.1),
        pooled(reference.standardized_distance, 0.1),
    ),
    "fitnet_positions": (losses.FitNet(rows="positions"), positions),
    "alignment_positions": (
        losses.ChannelAlignment(rows="positions"),
        lambda t, s: reference.channel_alignment(
            reference.rows(t, "positions"), reference.rows(s, "positions")
        ),
    ),
    "attention": (losses.AttentionTransfer(), reference.attention_transfer),
    "relations": (losses.RelationalDistillation(), relations),
    "distances": (
        losses.RelationalDistillation(distance_weight=2.0, angle_weight=0),
        lambda t, s: 2 * pooled(reference.relational_distance)(t, s),
    ),
    "similarity": (
        losses.SimilarityPreserving(),
        lambda t, s: reference.similarity_preserving(
            reference.rows(t, "flattened"), reference.rows(s, "flattened")
        ),
    ),
    "similarity_pooled": (
        losses.SimilarityPreserving(rows="pooled"),
        pooled(reference.similarity_preserving),
    ),
    "cka": (
        losses.CenteredKernelAlignment(),
        lambda t, s: 1 - pooled(reference.centered_kernel_alignment)(t, s),
    ),
    "contrast": (
        losses.ContrastiveDistillation(temperature=0.5),
        pooled(reference.contrastive_distillation, 0.5),
    ),
}
CLASSES = [
    losses.AttentionTransfer,
    losses.CenteredKernelAlignment,
    losses.ContrastiveDistillation,
    losses.DecoupledDistillation,
    losses.FitNet,
    losses.RelationalDistillation,
    losses.SimilarityPreserving,
]


@pytest.mark.parametrize("case", CASES)
def test_value_is_the_references_and_the_teacher_gets_no_gradient(case):
    loss, expected = CASES[case]
    actual, gradients = value_and_gradient(loss.compute_loss, *MAPS)
    np.testing.assert_allclose(actual, expected(*MAPS), rtol=1e-5)
    np.testing.assert_array_equal(gradients[0], 0.0)
    assert np.abs(gradients[1]).max() > 1e-4


@pytest.mark.parametrize("case", CASES)
def test_samples_without_a_teacher_are_left_out(case):
    loss, expected = CASES[case]
    mask = np.array([1, 1, 0, 1, 1, 0], bool)
    teacher = np.where(mask[:, None, None, None], MAPS[0], 0.0)
    given = {"teacher_mask": keras.ops.convert_to_tensor(mask)}
    if case in ("attention", "contrast"):
        given["sample_weight"] = np.where(mask, 6 / 4, 0.0).astype("float32")
    if case == "attention":
        del given["teacher_mask"]
    actual = float(loss.compute_loss(teacher, MAPS[1], **given))
    np.testing.assert_allclose(
        actual, expected(MAPS[0][mask], MAPS[1][mask]), rtol=1e-5
    )


def test_with_half_a_grid_positions_are_compared_with_means_of_blocks():
    fine = reference.samples(6, 4, 4, 4, seed=2)
    blocks = fine.reshape(6, 2, 2, 2, 2, 4).mean(axis=(2, 4))
    actual = float(losses.FitNet(rows="positions").compute_loss(fine, MAPS[1]))
    np.testing.assert_allclose(actual, positions(blocks, MAPS[1]), rtol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_half_precision_features_equal_the_reference_of_the_rounded(case):
    loss, expected = CASES[case]
    rounded = [keras.ops.cast(1e3 * feature, "float16") for feature in MAPS]
    actual = float(loss.compute_loss(*rounded))
    arrays = [keras.ops.convert_to_numpy(x).astype("float64") for x in rounded]
    np.testing.assert_allclose(actual, expected(*arrays), rtol=1e-4)


@pytest.mark.parametrize("loss_class", CLASSES)
@pytest.mark.parametrize("names", [("a", "b"), (None, "b"), (None, None)])
def test_config_survives_serialization(loss_class, names):
    loss = loss_class(teacher_layer_name=names[0], student_layer_name=names[1])
    restored = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(loss)
    )
    assert type(restored) is loss_class
    assert vars(restored) == vars(loss)
    config = restored.get_config()
    assert (config["teacher_layer_name"], config["student_layer_name"]) == names


@pytest.mark.parametrize(
    "loss",
    [
        losses.AttentionTransfer("map", "map"),
        losses.CenteredKernelAlignment("map", "map"),
        losses.ContrastiveDistillation("map", "map"),
        losses.DecoupledDistillation(2.0, 1.0, 2.0),
        losses.FitNet("map", "map", rows="positions"),
        losses.RelationalDistillation("map", "map"),
        losses.SimilarityPreserving("map", "map"),
    ],
    ids=lambda loss: loss.name,
)
def test_a_distiller_with_it_trains_and_is_saved(loss, tmp_path):
    def net(name, width):
        inputs = keras.Input((2, 2, 1))
        x = keras.layers.Conv2D(width, 1, activation="relu", name="map")(inputs)
        x = keras.layers.GlobalAveragePooling2D()(x)
        return keras.Model(inputs, keras.layers.Dense(4)(x), name=name)

    distiller = keras_dskd.Distiller(
        net("teacher", 5),
        net("student", 3),
        loss,
        student_loss_weight=0.01,
        projectors={"map": keras.layers.Dense(5)} if loss.student_layer_name else None,
    )
    distiller.compile(
        keras.optimizers.Adam(0.02),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    x = reference.samples(12, 2, 2, 1).astype("float32")
    y = np.arange(12) % 4
    history = distiller.fit(x, y, epochs=3, batch_size=6, verbose=0).history
    assert history[loss.name][-1] < history[loss.name][0]

    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")

    assert vars(loaded.distillation_losses[0]) == vars(loss)


def test_the_distiller_hands_labels_over_to_losses_that_name_them():
    teacher, student = model("teacher"), model("student")
    distiller = keras_dskd.Distiller(
        teacher,
        student,
        [
            losses.DecoupledDistillation(),
            losses.ContrastiveDistillation("teacher_feature", "student_feature"),
        ],
    )
    distiller.compile(
        keras.optimizers.SGD(0.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    x = reference.samples(6, 5).astype("float32")
    labels = np.array([0, 1, 2, 0, 1, 1])
    features = {
        layer.name: keras.Model(net.input, layer.output).predict(x, verbose=0)
        for net in (teacher, student)
        for layer in net.layers[1:]
    }

    history = distiller.fit(x, labels, batch_size=6, verbose=0).history

    logits = features["teacher_logits"], features["student_logits"]
    np.testing.assert_allclose(
        history["decoupled_distillation"][0],
        reference.decoupled_distillation(*logits, labels),
        rtol=1e-4,
    )
    rows = features["teacher_feature"], features["student_feature"]
    np.testing.assert_allclose(
        history["contrastive_distillation"][0],
        reference.contrastive_distillation(*rows, labels=labels),
        rtol=1e-4,
    )


def test_without_labels_decoupled_distillation_says_what_is_missing():
    distiller = keras_dskd.Distiller(
        model("teacher"),
        model("student"),
        losses.DecoupledDistillation(),
        student_loss_weight=0,
    )
    distiller.compile("sgd")
    with pytest.raises(ValueError, match="labels=None. Pass `y` to `fit`"):
        distiller.fit(reference.samples(6, 5).astype("float32"), verbose=0)


def test_keras_own_distiller_runs_them():
    value, features = distillation_loss_of_an_epoch(
        losses.RelationalDistillation("teacher_feature", "student_feature"),
        model("teacher"),
        model("student"),
    )
    expected = relations(features["teacher_feature"], features["student_feature"])
    np.testing.assert_allclose(value, expected, rtol=1e-4)


def test_a_softmax_is_not_taken_for_logits():
    with pytest.raises(ValueError, match=r"DecoupledDistillation\(teacher_from_logits"):
        keras_dskd.Distiller(
            model("teacher", activation="softmax"),
            model("student"),
            losses.DecoupledDistillation(),
        )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: losses.RelationalDistillation(distance_weight=-1), "distance_weight"),
        (lambda: losses.RelationalDistillation(angle_weight="2"), "angle_weight='2'"),
        (lambda: losses.DecoupledDistillation(non_target_weight=-1), "non_target"),
        (lambda: losses.DecoupledDistillation(temperature=0), "temperature"),
        (lambda: losses.FitNet(rows="row"), "rows='row'"),
        (lambda: losses.FitNet(epsilon=0), "epsilon=0"),
        (lambda: losses.SimilarityPreserving(rows="positions"), "one row each"),
        (lambda: losses.CenteredKernelAlignment(rows="positions"), "one row each"),
        (lambda: losses.ContrastiveDistillation(temperature=-1), "temperature=-1"),
        (lambda: losses.AttentionTransfer(3), "Received: 3 of type int"),
    ],
)
def test_arguments_out_of_range_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_only_what_is_pooled_is_cached_pooled():
    def cached_shape(loss):
        teacher = keras.Sequential(
            [keras.Input((2, 2, 1)), keras.layers.Conv2D(5, 1, name="map")]
        )
        student = keras.Sequential(
            [keras.Input((2, 2, 1)), keras.layers.Conv2D(5, 1, name="map")]
        )
        distiller = keras_dskd.Distiller(teacher, student, loss)
        x = np.ones((4, 2, 2, 1), "float32")
        return distiller.cache_teacher(x, verbose=0)["map"].shape

    assert cached_shape(losses.FitNet("map", "map")) == (4, 5)
    assert cached_shape(losses.FitNet("map", "map", rows="positions")) == (4, 2, 2, 5)
    assert cached_shape(losses.SimilarityPreserving("map", "map")) == (4, 2, 2, 5)
