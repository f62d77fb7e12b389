"""The student's own rules hold: its output names, and its exported form."""

import keras
import numpy as np
import pytest
from small_models import crossentropy, labels, mlp, rows, standing_still

import keras_dskd

X, Y = rows(8, 4), labels(8)
SIZES = rows(8, 1, seed=1)
# The same float32 formulas; only the order of sums differs.
CLOSE = {"rel": 1e-5, "abs": 1e-6}


def two_headed(outputs, name="student"):
    """A model with the outputs "kind" and "size", as a list or a dict."""
    inputs = keras.Input((4,))
    heads = [
        keras.layers.Dense(units, name=name, kernel_initializer=seeded)(inputs)
        for name, units, seeded in (
            ("kind", 3, keras.initializers.GlorotUniform(1)),
            ("size", 1, keras.initializers.GlorotUniform(2)),
        )
    ]
    if outputs is dict:
        heads = dict(zip(("kind", "size"), heads, strict=True))
    return keras.Model(inputs, heads, name=name)


class TwoHeads(keras.Model):
    """A subclassed model, whose outputs have no names."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.kind = keras.layers.Dense(3, kernel_initializer="ones")
        self.size = keras.layers.Dense(1, kernel_initializer="ones")

    def call(self, x):
        return [self.kind(x), self.size(x)]

    def get_config(self):
        return {"name": self.name}


def distiller(student, loss=None, teacher=None, **kwargs):
    losses = loss or keras_dskd.losses.SpatialUniformity(student.layers[-1].name)
    teacher = teacher or mlp(4, name="teacher")
    return keras_dskd.Distiller(teacher, student, losses, **kwargs)


def logs(model, x=X, y=(Y, SIZES), **compiled):
    """The logs of a step of `fit` that changes nothing, and those of `evaluate`."""
    model.compile(standing_still(), run_eagerly=True, **compiled)
    fit = model.fit(x, y, batch_size=8, verbose=0).history
    tested = model.evaluate(x, y, return_dict=True, verbose=0)
    return {name: values[-1] for name, values in fit.items()}, tested


NAMED = {"kind": Y, "size": SIZES}
LOSSES = {"kind": crossentropy(), "size": "mse"}


@pytest.mark.parametrize(
    ("outputs", "y", "compiled"),
    [
        (
            list,
            NAMED,
            {
                "loss": LOSSES,
                "loss_weights": {"size": 0.25, "kind": 2.0},
                "metrics": {"kind": "accuracy", "size": ["mae"]},
            },
        ),
        (
            dict,
            NAMED,
            {
                "loss": LOSSES,
                "metrics": {"size": "mae"},
                "weighted_metrics": {"kind": "accuracy"},
            },
        ),
        (
            list,
            [Y, SIZES],
            {"loss": [crossentropy(), "mse"], "metrics": [["accuracy"], ["mae"]]},
        ),
    ],
)
def test_outputs_are_addressed_as_the_student_takes_them(outputs, y, compiled):
    student = two_headed(outputs)
    kwargs = {"y": y, **compiled}
    expected, tested = logs(student, **kwargs)
    made = distiller(student)
    assert made.output_names == student.output_names == ["kind", "size"]
    received, received_tested = logs(made, **kwargs)
    assert received.pop("loss") == received.pop("total_loss")
    assert received.pop("student_loss") == pytest.approx(expected.pop("loss"), **CLOSE)
    for name in ("distillation_loss", "spatial_uniformity"):
        received.pop(name)
    assert received == pytest.approx(expected, **CLOSE)
    for name in tested:
        assert received_tested[name] == pytest.approx(tested[name], **CLOSE)


def test_an_unknown_output_is_refused_as_the_student_refuses_it():
    compiled = {"loss": {"kind": crossentropy(), "width": "mse"}}
    for model in (two_headed(list), distiller(two_headed(list))):
        with pytest.raises(ValueError, match=r"Expected keys \['kind', 'size'\]"):
            logs(model, y=NAMED, **compiled)


def test_an_output_named_student_leaves_the_students_loss_alone():
    inputs = keras.Input((4,))
    heads = {name: keras.layers.Dense(1)(inputs) for name in ("student", "size")}
    made = distiller(keras.Model(inputs, heads), student_loss_weight=1.0)
    y = {"student": SIZES, "size": SIZES}
    fit, _ = logs(made, y=y, loss={"student": "mse", "size": "mse"})
    assert fit["student_loss"] == pytest.approx(fit["loss"], **CLOSE)
    assert fit["student_loss"] > fit["size_loss"] > 0


def test_a_single_output_goes_by_its_name():
    compiled = {"loss": {"logits": crossentropy()}, "metrics": {"logits": "accuracy"}}
    student = mlp(4)
    expected, _ = logs(student, y=Y, **compiled)
    received, _ = logs(distiller(student), y=Y, **compiled)
    assert received["student_loss"] == pytest.approx(expected["loss"], **CLOSE)
    assert received["accuracy"] == expected["accuracy"]


def test_models_without_output_names_log_what_they_log_alone():
    sequential = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    for student, y, compiled in (
        (sequential, Y, {"loss": crossentropy(), "metrics": ["accuracy"]}),
        (
            TwoHeads(),
            (Y, SIZES),
            {"loss": [crossentropy(), "mse"], "metrics": ["accuracy", "mae"]},
        ),
    ):
        student(X)
        expected, _ = logs(student, y=y, **compiled)
        made = distiller(
            student, keras_dskd.losses.SpatialUniformity(student.layers[0].name)
        )
        assert hasattr(made, "output_names") == hasattr(student, "output_names")
        received, _ = logs(made, y=y, **compiled)
        assert received["student_loss"] == pytest.approx(expected.pop("loss"), **CLOSE)
        assert {name: received[name] for name in expected} == pytest.approx(
            expected, **CLOSE
        )


class Recorded(keras.Model):
    """Records how it is exported."""

    def call(self, x):
        return x

    def export(self, *args, **kwargs):
        self.exported = args, kwargs


@pytest.mark.backend_neutral
def test_export_passes_everything_to_the_student():
    student = Recorded()
    student(X)
    made = distiller(student, keras_dskd.losses.SpatialUniformity())
    signature = [keras.InputSpec(shape=(None, 4), dtype="float32")]
    made.export("path", "onnx", False, signature, opset_version=18)
    assert student.exported == (
        ("path", "onnx", False, signature),
        {"opset_version": 18},
    )


@pytest.mark.backend_neutral
def test_export_refuses_the_signature_of_a_pair():
    spec = keras.InputSpec(shape=(None, 4), dtype="float32")
    pair = {"teacher": spec, "student": spec}
    for signature in (pair, [pair]):
        with pytest.raises(ValueError, match="student's input alone. Received"):
            distiller(mlp(4)).export("path", input_signature=signature)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="SavedModel is TensorFlow's format"
)
def test_the_exported_model_predicts_as_the_student(tmp_path):
    tensorflow = pytest.importorskip("tensorflow")
    made = distiller(mlp(4))
    signature = [keras.InputSpec(shape=(None, 4), dtype="float32")]
    made.export(tmp_path / "before", verbose=False, input_signature=signature)
    made.compile("sgd", crossentropy())
    made.fit(X, Y, verbose=0)
    made.export(tmp_path / "after", verbose=False)
    loaded = tensorflow.saved_model.load(str(tmp_path / "after"))
    np.testing.assert_allclose(loaded.serve(X), made.student(X), rtol=1e-6, atol=1e-6)
