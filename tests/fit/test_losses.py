"""Every loss trains in a `keras_dskd.Distiller`, with the labels that it reads."""

import keras
import numpy as np
import pytest
import reference
from stock_distiller import model

import keras_dskd
from keras_dskd import losses

pytestmark = pytest.mark.every_backend


def cross_entropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def test_all_losses_train_together_and_each_is_logged():
    def net(name, width):
        inputs = keras.Input((2, 2, 1))
        x = keras.layers.Conv2D(width, 1, activation="relu", name="map")(inputs)
        x = keras.layers.GlobalAveragePooling2D()(x)
        return keras.Model(inputs, keras.layers.Dense(4)(x), name=name)

    reads = {
        "SoftTargets": {},
        "HardTargets": {},
        "RegressionTargets": {},
        "DecoupledDistillation": {},
        "SpatialUniformity": {"student_layer_name": "map"},
    }
    both = {"teacher_layer_name": "map", "student_layer_name": "map"}
    given = [getattr(losses, name)(**reads.get(name, both)) for name in losses.__all__]
    distiller = keras_dskd.Distiller(
        net("teacher", 5),
        net("student", 3),
        given,
        student_loss_weight=0.01,
        projectors={"map": keras.layers.Dense(5)},
    )
    distiller.compile(keras.optimizers.Adam(0.02), cross_entropy())
    x = reference.samples(12, 2, 2, 1).astype("float32")
    history = distiller.fit(
        x, np.arange(12) % 4, epochs=3, batch_size=6, verbose=0
    ).history
    assert len({loss.name for loss in given}) == len(losses.__all__)
    for loss in given:
        assert np.isfinite(history[loss.name]).all()
        assert np.ptp(history[loss.name]) > 0
    assert history["distillation_loss"][-1] < history["distillation_loss"][0]


def test_losses_that_read_labels_get_them():
    teacher, student = model("teacher"), model("student")
    distiller = keras_dskd.Distiller(
        teacher,
        student,
        [
            losses.DecoupledDistillation(),
            losses.ContrastiveDistillation("teacher_feature", "student_feature"),
        ],
    )
    distiller.compile(keras.optimizers.SGD(0.0), cross_entropy())
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


def test_decoupled_distillation_without_labels_raises():
    distiller = keras_dskd.Distiller(
        model("teacher"),
        model("student"),
        losses.DecoupledDistillation(),
        student_loss_weight=0,
    )
    distiller.compile("sgd")
    with pytest.raises(ValueError, match="labels=None. Pass `y` to `fit`"):
        distiller.fit(reference.samples(6, 5).astype("float32"), verbose=0)


@pytest.mark.parametrize(
    "loss, shape",
    [
        (losses.FitNet("map", "map"), (5,)),
        (losses.FitNet("map", "map", rows="positions"), (2, 2, 5)),
        (losses.SimilarityPreserving("map", "map"), (2, 2, 5)),
    ],
    ids=["pooled", "positions", "flattened"],
)
def test_features_are_cached_pooled_only_for_losses_that_pool_them(loss, shape):
    teacher, student = (
        keras.Sequential(
            [keras.Input((2, 2, 1)), keras.layers.Conv2D(5, 1, name="map")]
        )
        for _ in range(2)
    )
    distiller = keras_dskd.Distiller(teacher, student, loss)
    features = distiller.cache_teacher(np.ones((4, 2, 2, 1), "float32"), verbose=0)
    assert features["map"].shape == (4, *shape)


def test_losses_of_outputs_train_live_cached_and_loaded(tmp_path):
    """With sample weights, and samples that have no teacher."""

    def net(name):
        inputs = keras.Input((2, 2, 1))
        feature_map = keras.layers.Conv2D(3, 1, name="map")(inputs)
        flat = keras.layers.Flatten()(feature_map)
        return keras.Model(inputs, keras.layers.Dense(3)(flat), name=name)

    maps = {"teacher_layer_name": "map", "student_layer_name": "map"}
    teacher, student = net("teacher"), net("student")
    made = keras_dskd.Distiller(
        teacher,
        student,
        [
            losses.BinarySoftTargets(),
            losses.RegressionTargets(),
            losses.RegressionTargets(bounded=True),
            losses.HardTargets(),
            losses.ChannelWiseDistillation(**maps),
            losses.SoftTargets(axis=1, **maps),
        ],
        student_loss_weight=0.01,
    )
    x, y = reference.samples(8, 2, 2, 1).astype("float32"), reference.samples(8, 3)
    mask = np.array([1, 1, 0, 1, 1, 0, 1, 1], bool)
    weight = np.linspace(0.5, 2.0, 8).astype("float32")
    outputs = [net.predict(x, verbose=0) for net in (teacher, student)]
    feature_maps = [
        keras.Model(net.input, net.get_layer("map").output).predict(x, verbose=0)
        for net in (teacher, student)
    ]

    def expected(formula, *arrays):
        each = [formula(*(array[i : i + 1] for array in arrays)) for i in range(8)]
        return np.mean(np.where(mask, weight * 8 / 6, 0.0) * each)

    classes_last = [np.moveaxis(each, 1, -1) for each in feature_maps]
    values = {
        "binary_soft_targets": expected(reference.binary_soft_targets, *outputs),
        "regression_targets": expected(reference.regression_targets, *outputs),
        "regression_targets_1": expected(reference.bounded_regression, *outputs, y),
        "hard_targets": expected(reference.hard_targets, *outputs),
        "channel_wise_distillation": expected(
            reference.channel_wise_distillation, *feature_maps
        ),
        "soft_targets": expected(reference.soft_targets, *classes_last),
    }

    def assert_right(distiller, teacher_input):
        # A loss that may be for any task, because the terms are for several.
        distiller.compile(keras.optimizers.SGD(0.0), "cosine_similarity")
        given = {"student": x, "teacher_mask": mask, **teacher_input}
        history = distiller.fit(
            given, y, sample_weight=weight, batch_size=8, verbose=0
        ).history
        for name, value in values.items():
            np.testing.assert_allclose(history[name][0], value, rtol=1e-4, err_msg=name)

    spoiled = np.where(mask[:, None, None, None], x, np.nan)
    assert_right(made, {"teacher": spoiled})
    cached = made.cache_teacher(x, path=tmp_path / "cache", verbose=0)
    made.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    assert_right(loaded, {"teacher_features": cached})


def test_each_head_of_several_gets_its_own_labels():
    def net(name):
        inputs = keras.Input((5,))
        kind = keras.layers.Dense(3, name="kind_head")(inputs)
        size = keras.layers.Dense(1, name="size_head")(inputs)
        return keras.Model(inputs, {"size": size, "kind": kind}, name=name)

    teacher, student = net("teacher"), net("student")
    distiller = keras_dskd.Distiller(
        teacher,
        student,
        [
            losses.DecoupledDistillation(
                teacher_layer_name="kind_head",
                student_layer_name="kind_head",
                ignore_class=2,
            ),
            losses.RegressionTargets("size_head", "size_head", bounded=True),
        ],
    )
    distiller.compile(
        keras.optimizers.SGD(0.0), {"kind": cross_entropy(), "size": "mse"}
    )
    x = reference.samples(6, 5).astype("float32")
    kind, size = np.array([0, 1, 2, 0, 1, 1]), reference.samples(6, seed=3)
    outputs = [m.predict(x, verbose=0) for m in (teacher, student)]

    history = distiller.fit(
        x, {"kind": kind, "size": size.astype("float32")}, batch_size=6, verbose=0
    ).history

    kept = kind != 2
    np.testing.assert_allclose(
        history["decoupled_distillation"][0],
        reference.decoupled_distillation(
            *(out["kind"][kept] for out in outputs), kind[kept]
        ),
        rtol=1e-4,
    )
    np.testing.assert_allclose(
        history["regression_targets"][0],
        reference.bounded_regression(*(out["size"] for out in outputs), size[:, None]),
        rtol=1e-4,
    )
