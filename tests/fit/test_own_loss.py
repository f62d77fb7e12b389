"""Students whose class has its own loss, metrics or steps."""

import keras
import numpy as np
import pytest
from keras import ops
from small_models import AddsLoss, crossentropy, labels, mlp, rows, standing_still

import keras_dskd

X, Y = rows(8, 4), labels(8)
# The same float32 formulas; only the order of sums differs.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


class Student(keras.Model):
    """Its loss is three times the compiled loss, plus the mean square of the logits.

    A layer adds a loss, and a kernel has a regularizer.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = keras.layers.Dense(
            5,
            "tanh",
            name="hidden",
            kernel_initializer=keras.initializers.GlorotUniform(0),
            kernel_regularizer=keras.regularizers.L2(0.1),
        )
        self.adds = AddsLoss(0.5)
        self.head = keras.layers.Dense(
            3, name="logits", kernel_initializer=keras.initializers.GlorotUniform(1)
        )

    def call(self, x):
        return self.head(self.adds(self.hidden(x)))

    def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        return 3.0 * loss + ops.mean(ops.square(y_pred))

    def get_config(self):
        return {"name": self.name}


class Measuring(Student):
    """Holds metrics, one of which is updated in `compute_loss` and named "loss"."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.tracked = keras.metrics.Mean("loss")
        self.largest = keras.metrics.Mean("largest")

    def compute_loss(self, x, y, y_pred, sample_weight=None):
        loss = super().compute_loss(x, y, y_pred, sample_weight)
        self.tracked.update_state(2.0 * loss)
        return loss

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        logs = super().compute_metrics(x, y, y_pred, sample_weight)
        self.largest.update_state(ops.max(x))
        return {**logs, "error": 1.0 - logs["accuracy"]}


def distiller(student, **kwargs):
    losses = keras_dskd.losses.ChannelAlignment("hidden", "hidden")
    return keras_dskd.Distiller(mlp(4, name="teacher"), student, losses, **kwargs)


def built(kind=Student):
    student = kind()
    student(X)
    return student


def last(history):
    return {name: values[-1] for name, values in history.history.items()}


def fit(model, y=Y, optimizer=None, loss="default", metrics=None, **kwargs):
    loss = crossentropy() if loss == "default" else loss
    model.compile(optimizer or standing_still(), loss, metrics=metrics)
    return last(model.fit(X, y, batch_size=8, verbose=0, **kwargs))


def test_the_students_own_loss_is_minimized():
    """Its compiled part, what layers add and regularizers count once each."""
    alone, student = built(), built()
    expected = fit(alone, optimizer=keras.optimizers.SGD(0.1))
    # Without distillation, half of the loss at twice the rate.
    made = distiller(student, distillation_loss_weights=0.0)
    received = fit(made, optimizer=keras.optimizers.SGD(0.2))
    np.testing.assert_allclose(received["student_loss"], expected["loss"], **CLOSE)
    for one, other in zip(student.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, **CLOSE)
    tested = made.evaluate(X, Y, verbose=0, return_dict=True)["loss"]
    np.testing.assert_allclose(tested, alone.evaluate(X, Y, verbose=0), **CLOSE)


def test_the_students_metrics_are_reported_as_it_reports_them():
    alone, student = built(Measuring), built(Measuring)
    expected = fit(alone, metrics=["accuracy"])
    received = fit(distiller(student), metrics=["accuracy"])
    assert received["loss"] == pytest.approx(received["total_loss"])
    for name in ("largest", "accuracy", "error"):
        np.testing.assert_allclose(received[name], expected[name], **CLOSE)
    tracked = ops.convert_to_numpy(student.tracked.result())
    np.testing.assert_allclose(tracked, 2.0 * received["student_loss"], **CLOSE)


@pytest.mark.backend_neutral
def test_the_student_is_compiled_as_before_the_step():
    student = built()
    student.compile("adam", "mse", metrics=["mae"])
    before = dict(vars(student))
    made = distiller(student)
    made.compile("sgd", crossentropy(), metrics=["accuracy"])
    made.train_on_batch(X, Y)
    for name in ("_compile_loss", "_compile_metrics", "_losses_override", "optimizer"):
        assert vars(student)[name] is before[name]
    assert "_lent" not in vars(student)


@pytest.mark.backend_neutral
def test_without_a_loss_the_students_own_compiled_loss_and_metrics_hold(tmp_path):
    student = built()
    student.compile("adam", crossentropy(), metrics=["accuracy"])
    made = distiller(student)
    expected = fit(built(), metrics=["accuracy"])
    received = fit(made, loss=None)
    np.testing.assert_allclose(received["student_loss"], expected["loss"], **CLOSE)
    assert received["accuracy"] == expected["accuracy"]
    made.save(tmp_path / "made.keras")
    custom = {"Student": Student}
    loaded = keras_dskd.Distiller.load(tmp_path / "made.keras", custom_objects=custom)
    again = last(loaded.fit(X, Y, batch_size=8, verbose=0))
    np.testing.assert_allclose(again["student_loss"], expected["loss"], **CLOSE)
    assert again["accuracy"] == expected["accuracy"]


@pytest.mark.backend_neutral
def test_a_loss_that_needs_no_labels_trains_without_them():
    class Reconstructing(Student):
        def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
            return ops.mean(ops.square(ops.mean(x, axis=1) - ops.mean(y_pred, axis=1)))

    expected = fit(built(Reconstructing), y=None, loss=None)["loss"]
    received = fit(distiller(built(Reconstructing)), y=None, loss=None)["student_loss"]
    np.testing.assert_allclose(received, expected, **CLOSE)


class Decoding(Student):
    def predict_step(self, *args):
        outputs = super().predict_step(*args)
        if isinstance(outputs, tuple):  # On JAX.
            return ops.argmax(outputs[0], axis=-1), outputs[1]
        return ops.argmax(outputs, axis=-1)


def test_predict_decodes_as_the_student_does():
    student = built(Decoding)
    made = distiller(student)
    fit(made)
    expected = student.predict(X, verbose=0)
    assert expected.shape == (8,)
    for x in (X, {"student": X}):
        np.testing.assert_array_equal(made.predict(x, verbose=0), expected)
    fit(made)  # The variables have kept their values.


@pytest.mark.backend_neutral
@pytest.mark.parametrize("step", ["train_step", "test_step"])
def test_a_student_with_its_own_step_is_warned_of(step):
    kind = type("Adversarial", (Student,), {step: lambda self, *args: {}})
    with pytest.warns(UserWarning, match=rf"Adversarial has its own `{step}`, which"):
        distiller(kind())


def detector(name, channels):
    """A small `RetinaNetObjectDetector`."""
    models = pytest.importorskip("keras_hub").models
    levels, x = {}, keras.Input((32, 32, channels))
    inputs = x
    for level in range(1, 5):
        x = keras.layers.Conv2D(4, 3, 2, "same", activation="relu")(x)
        levels[f"P{level}"] = x
    encoder = keras.Model(inputs, levels)
    encoder.pyramid_outputs = levels
    backbone = models.RetinaNetBackbone(
        encoder, 3, 4, use_p5=True, image_shape=(32, 32, channels)
    )
    return models.RetinaNetObjectDetector(
        backbone, 2, "xyxy", pre_logits_num_conv_layers=1, name=name
    )


def test_a_detector_trains_with_boxes_and_features():
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    weak = images[..., :1]
    boxes = {
        "boxes": np.array([[[0, 0, 31, 30]]] * 2, "float32"),
        "labels": np.ones((2, 1), "int32"),
    }
    student = detector("student", 1)
    weights = student.get_weights()
    made = keras_dskd.Distiller(
        detector("teacher", 3),
        student,
        [
            keras_dskd.losses.FitNet("P3", "P3", rows="positions"),
            keras_dskd.losses.AttentionTransfer("P4", "P4"),
        ],
    )
    student.compile(standing_still())
    made.compile(keras.optimizers.SGD(0.01))
    received = last(made.fit({"teacher": images, "student": weak}, boxes, verbose=0))
    moved = [
        not np.array_equal(one, other)
        for one, other in zip(student.get_weights(), weights, strict=True)
    ]
    assert sum(moved) > 0.8 * len(moved)
    student.set_weights(weights)
    x, y = keras.tree.map_structure(ops.convert_to_tensor, (weak, boxes))
    expected = student.compute_loss(x, y, student(x, training=True), None)
    np.testing.assert_allclose(
        received["student_loss"], ops.convert_to_numpy(expected), rtol=1e-4
    )
    parts = received["bbox_regression_loss"] + received["cls_logits_loss"]
    assert parts == pytest.approx(received["student_loss"], rel=1e-5)
