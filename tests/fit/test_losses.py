"""Every loss trains in a `keras_dskd.Distiller`, with the labels that it reads."""

import keras
import numpy as np
import pytest
import reference
from stock_distiller import model

import keras_dskd
from keras_dskd import losses


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
