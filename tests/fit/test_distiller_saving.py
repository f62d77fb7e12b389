"""Saving: a distiller goes on as if never interrupted, and its student is plain."""

import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from keras import ops
from small_models import Subclassed, cnn, crossentropy, images, labels, mlp, rows

import keras_dskd

FeatureDistillation = keras.distillation.FeatureDistillation

X = {"teacher": rows(8, 6, seed=1), "student": rows(8, 4, seed=2)}
Y = labels(8)

# Two programs of the same float32 operations, through a few steps of training.
TRAINED = {"rtol": 1e-4, "atol": 1e-5}


def distiller(losses=None, teacher=None, student=None, optimizer="adam", **kwargs):
    made = keras_dskd.Distiller(
        teacher or mlp(6, name="teacher", seed=10),
        student or mlp(4),
        losses or [keras_dskd.losses.SoftTargets(2.0), FeatureDistillation()],
        **kwargs,
    )
    made.compile(optimizer, crossentropy(), metrics=["accuracy"])
    return made


def fit(made, epochs=1, x=X, **kwargs):
    """Two batches an epoch, always in the same order."""
    kwargs = {"batch_size": 4, "shuffle": False, "verbose": 0, **kwargs}
    return made.fit(x, Y, epochs=epochs, **kwargs).history


def saved_and_loaded(made, folder, **kwargs):
    path = os.path.join(folder, "distiller.keras")
    made.save(path)
    return keras.models.load_model(path, **kwargs)


def assert_close(received, expected):
    for one, other in zip(received, expected, strict=True):
        np.testing.assert_allclose(one, other, **TRAINED)


def assert_same(received, expected):
    for one, other in zip(received, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def with_everything():
    """A projector, a schedule, a changed weight, an optimizer with a state."""
    return distiller(
        [
            keras_dskd.losses.SoftTargets(2.0),
            keras_dskd.losses.ChannelIndependence("gap", "gap"),
            keras_dskd.losses.ChannelAlignment("gap", "gap", epsilon=1e-3),
            keras_dskd.losses.SpatialUniformity("relu0", rows="flattened"),
            FeatureDistillation("mae", "gap", "gap"),
        ],
        distillation_loss_weights=[
            1.0,
            keras.optimizers.schedules.PolynomialDecay(0.0, 6, 1.0),
            0.1,
            0.2,
            0.3,
        ],
        student_loss_weight=0.4,
        teacher=cnn(3, widths=(6,), name="teacher"),
        student=cnn(1, widths=(4,)),
        projectors={"gap": keras.layers.Dense(6, name="projector")},
        optimizer=keras.optimizers.Adam(0.05),
    )


IMAGES = {"teacher": images(8, 3, seed=1), "student": images(8, 1, seed=2)}


def test_a_run_saved_half_way_equals_the_uninterrupted_one(tmp_path):
    """Weights, projector, optimizer, step of the schedule: all of it goes on."""
    whole = with_everything()
    fit(whole, epochs=2, x=IMAGES)
    half = saved_and_loaded(whole, tmp_path)
    assert_same(half.get_weights(), whole.get_weights())
    np.testing.assert_allclose(
        half.predict(IMAGES, verbose=0), whole.predict(IMAGES, verbose=0), **TRAINED
    )
    expected, received = fit(whole, 2, x=IMAGES), fit(half, 2, x=IMAGES)
    assert set(received) == set(expected)
    for name, values in expected.items():
        # float32 through four steps of training.
        assert received[name] == pytest.approx(values, rel=1e-4, abs=1e-5)
    assert_close(half.student.get_weights(), whole.student.get_weights())
    assert_close(
        half.projectors["gap"].get_weights(), whole.projectors["gap"].get_weights()
    )
    assert_close(
        [ops.convert_to_numpy(v) for v in half.optimizer.variables],
        [ops.convert_to_numpy(v) for v in whole.optimizer.variables],
    )


def test_the_teacher_and_its_flags_come_back(tmp_path):
    teacher = mlp(6, name="teacher", seed=10)
    teacher.get_layer("hidden").trainable = False
    loaded = saved_and_loaded(distiller(teacher=teacher), tmp_path)
    assert_same(loaded.teacher.get_weights(), teacher.get_weights())
    assert not loaded.teacher.get_layer("hidden").trainable
    assert loaded.teacher.get_layer("logits").trainable
    assert len(loaded.trainable_variables) == 4


def test_a_distiller_is_saved_before_any_training(tmp_path):
    """With a projector that has no weights yet."""
    made = distiller(
        FeatureDistillation("mse", "hidden", "hidden"),
        student=mlp(4, hidden=2),
        projectors={"hidden": keras.layers.Dense(5)},
    )
    loaded = saved_and_loaded(made, tmp_path)
    assert_same(loaded.student.get_weights(), made.student.get_weights())
    assert np.isfinite(fit(loaded)["loss"][0])
    assert len(loaded.trainable_variables) == 6


def test_a_distiller_that_was_never_compiled_is_saved(tmp_path):
    made = keras_dskd.Distiller(
        mlp(6, name="teacher"), mlp(4), keras_dskd.losses.SoftTargets()
    )
    loaded = saved_and_loaded(made, tmp_path)
    loaded.compile("adam", crossentropy())
    assert np.isfinite(fit(loaded)["loss"][0])


def test_the_config_holds_what_was_given(tmp_path):
    schedule = keras.optimizers.schedules.CosineDecay(0.5, 10)
    made = distiller(
        [
            keras_dskd.losses.ChannelIndependence(
                None, "hidden", target="self", epsilon=1e-3
            ),
            keras_dskd.losses.SpatialUniformity("hidden", 3.0, "positions"),
            keras.distillation.LogitsDistillation(3.0, "mse"),
        ],
        distillation_loss_weights=[0.5, schedule, 0.0],
        student_loss_weight=0.25,
        name="mine",
    )
    loaded = saved_and_loaded(made, tmp_path)
    assert loaded.name == "mine"
    assert loaded.student_loss_weight == 0.25
    first, second, third = loaded.distillation_loss_weights
    assert (first, third) == (0.5, 0.0)
    assert second.get_config() == schedule.get_config()
    for kept, loss in zip(
        loaded.distillation_losses, made.distillation_losses, strict=True
    ):
        assert type(kept) is type(loss)
        assert kept.get_config() == loss.get_config()


def test_weights_assigned_since_construction_are_saved(tmp_path):
    made = distiller()
    made.distillation_loss_weights[1] = 3.0
    made.student_loss_weight = 0.75
    loaded = saved_and_loaded(made, tmp_path)
    assert loaded.distillation_loss_weights == [1.0, 3.0]
    assert loaded.student_loss_weight == 0.75


def test_a_weights_file_restores_a_fresh_distiller(tmp_path):
    made = with_everything()
    fit(made, x=IMAGES)
    made.distillation_loss_weights[2] = 0.75
    path = os.path.join(tmp_path, "distiller.weights.h5")
    made.save_weights(path)
    fresh = with_everything()
    fit(fresh, x=IMAGES)
    fit(fresh, x=IMAGES)
    fresh.load_weights(path)
    assert_same(fresh.get_weights(), made.get_weights())
    assert fresh.distillation_loss_weights[2] == 0.75
    expected, received = fit(made, x=IMAGES), fit(fresh, x=IMAGES)
    # The step of the schedule as well; the optimizer shows only after this step.
    assert received["loss"] == pytest.approx(expected["loss"], rel=1e-2)


def test_a_students_weights_file_is_that_of_a_plain_model(tmp_path):
    made = distiller()
    fit(made)
    path = os.path.join(tmp_path, "student.weights.h5")
    made.student.save_weights(path)
    plain = mlp(4, seed=99)
    plain.load_weights(path)
    assert_same(plain.get_weights(), made.student.get_weights())


def test_a_checkpoint_of_a_run_is_loaded_by_the_callback(tmp_path):
    path = os.path.join(tmp_path, "best.keras")
    checkpoint = keras.callbacks.ModelCheckpoint(
        path, monitor="val_loss", save_best_only=True
    )
    made = distiller()
    fit(made, 2, callbacks=[checkpoint], validation_data=(X["student"], Y))
    loaded = keras.models.load_model(path)
    assert np.isfinite(fit(loaded)["loss"][0])


def test_a_run_is_backed_up_and_restored(tmp_path):
    """`BackupAndRestore` ends where a run without an interruption does."""

    class Interrupts(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise RuntimeError("interrupted")

    whole, broken = distiller(), distiller()
    fit(whole, 3)
    backup = keras.callbacks.BackupAndRestore(tmp_path)
    with pytest.raises(RuntimeError, match="interrupted"):
        fit(broken, 3, callbacks=[backup, Interrupts()])
    again = distiller()
    fit(again, 3, callbacks=[keras.callbacks.BackupAndRestore(tmp_path)])
    assert_close(again.student.get_weights(), whole.student.get_weights())


# Models of other kinds


def test_subclassed_models_come_back(tmp_path):
    teacher, student = Subclassed(name="teacher"), Subclassed(name="student")
    teacher(X["teacher"])
    made = distiller(
        FeatureDistillation("mse", "hidden", "hidden"), teacher=teacher, student=student
    )
    fit(made)
    loaded = saved_and_loaded(made, tmp_path)
    assert_same(loaded.get_weights(), made.get_weights())
    expected, received = fit(made), fit(loaded)
    assert received["loss"] == pytest.approx(expected["loss"], rel=1e-5)  # float32


def sharing(seed):
    """A teacher and a student on one backbone, trained for an epoch."""
    inputs = keras.Input((4,))
    stem = keras.layers.Dense(
        5, name="stem", kernel_initializer=keras.initializers.GlorotUniform(seed)
    )
    backbone = keras.Model(inputs, stem(inputs), name="shared")

    def with_head(name):
        inputs = keras.Input((4,))
        return keras.Model(inputs, keras.layers.Dense(3)(backbone(inputs)), name=name)

    made = distiller(teacher=with_head("teacher"), student=with_head("student"))
    fit(made, x=X["student"])
    return made


def test_models_that_share_a_backbone_are_refused_as_a_whole(tmp_path):
    """Keras writes a shared layer once, and would load it into one model alone."""
    made = sharing(seed=0)
    with pytest.raises(ValueError, match="share layers cannot .* Shared: .*'shared'"):
        made.save(tmp_path / "distiller.keras")


def test_models_that_share_a_backbone_are_saved_apart_and_by_weights(tmp_path):
    made = sharing(seed=0)
    for model in (made.student, made.teacher):
        path = os.path.join(tmp_path, f"{model.name}.keras")
        model.save(path)
        assert_same(keras.models.load_model(path).get_weights(), model.get_weights())
    path = os.path.join(tmp_path, "distiller.weights.h5")
    made.save_weights(path)
    fresh = sharing(seed=1)
    fresh.load_weights(path)
    assert_same(fresh.student.get_weights(), made.student.get_weights())
    assert_same(fresh.teacher.get_weights(), made.teacher.get_weights())
    assert fresh.student.get_layer("shared") is fresh.teacher.get_layer("shared")


# Losses and weights of the user's


@keras.saving.register_keras_serializable(package="tests")
class Through(keras.distillation.DistillationLoss):
    """A loss of a user's with an option and a trained layer."""

    def __init__(self, scale, layer):
        self.teacher_layer_name = self.student_layer_name = "hidden"
        self.scale = scale
        self.layer = layer

    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        matched = self.layer(student_outputs)
        return self.scale * ops.mean(ops.square(teacher_outputs - matched))

    def get_config(self):
        layer = keras.saving.serialize_keras_object(self.layer)
        return {"scale": self.scale, "layer": layer}

    @classmethod
    def from_config(cls, config):
        layer = keras.saving.deserialize_keras_object(config["layer"])
        return cls(config["scale"], layer)


def test_a_registered_loss_comes_back_with_its_trained_layer(tmp_path):
    made = distiller(Through(2.0, keras.layers.Dense(5)), student=mlp(4, hidden=2))
    fit(made)
    loaded = saved_and_loaded(made, tmp_path)
    (loss,) = loaded.distillation_losses
    assert loss.scale == 2.0
    assert_same(
        loss.layer.get_weights(), made.distillation_losses[0].layer.get_weights()
    )
    expected, received = fit(made), fit(loaded)
    assert received["through"] == pytest.approx(expected["through"], rel=1e-4)
    assert len(loaded.trainable_variables) == 6


@keras.saving.register_keras_serializable(package="tests")
def rising(step):
    return 0.1 * ops.cast(step, "float32")


def test_a_registered_function_as_a_weight_comes_back(tmp_path):
    made = distiller(FeatureDistillation(), distillation_loss_weights=rising)
    fit(made)
    loaded = saved_and_loaded(made, tmp_path)
    assert loaded.distillation_loss_weights == [rising]
    expected, received = fit(made), fit(loaded)
    name = "distillation_loss"
    assert received[name] == pytest.approx(expected[name], rel=1e-4)  # float32


def test_a_lambda_as_a_weight_is_refused_when_saved(tmp_path):
    made = distiller(FeatureDistillation(), distillation_loss_weights=lambda step: 1.0)
    fit(made)
    with pytest.raises(ValueError, match="A lambda as a weight cannot be saved. Use a"):
        made.save(os.path.join(tmp_path, "distiller.keras"))


def test_another_program_loads_the_student_plainly_and_the_distiller_in_safe_mode(
    tmp_path,
):
    """It knows nothing of this one, and for the student not even the package."""
    made = distiller(
        [
            keras_dskd.losses.SoftTargets(2.0),
            keras_dskd.losses.ChannelIndependence("hidden", "hidden"),
            FeatureDistillation("mae", "hidden", "hidden"),
        ],
        student=mlp(4, hidden=2),
        distillation_loss_weights=[
            1.0,
            keras.optimizers.schedules.PolynomialDecay(0.0, 6, 1.0),
            0.0,
        ],
        projectors={"hidden": keras.layers.Dense(5)},
    )
    fit(made)
    made.save(tmp_path / "distiller.keras")
    made.student.save(tmp_path / "student.keras")
    np.savez(tmp_path / "data.npz", y=Y, **X)
    program = """
        import sys
        import keras
        import numpy as np

        data = np.load("data.npz")
        student = keras.models.load_model("student.keras")
        np.save("by_student.npy", student.predict(data["student"], verbose=0))
        assert "keras_dskd" not in sys.modules
        assert type(student).__module__.startswith("keras.")

        import keras_dskd

        made = keras.models.load_model("distiller.keras", safe_mode=True)
        np.save("by_distiller.npy", made.predict(data["student"], verbose=0))
        made.fit({name: data[name] for name in ("teacher", "student")}, data["y"])
        """
    root = os.path.dirname(os.path.dirname(keras_dskd.__file__))
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    expected = made.student.predict(X["student"], verbose=0)
    for name in ("by_student", "by_distiller"):
        predicted = np.load(tmp_path / f"{name}.npy")
        np.testing.assert_allclose(predicted, expected, **TRAINED)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.Adam(),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(momentum=0.9)),
    ],
    ids=["plain", "with loss scaling"],
)
def test_the_optimizer_is_saved_by_a_name_that_all_backends_know(optimizer):
    made = distiller()
    made.compile(optimizer(), crossentropy())
    saved = made.get_compile_config()["optimizer"]
    assert saved["module"] == "keras.optimizers"
    inner = saved["config"].get("inner_optimizer")
    assert inner is None or inner["module"] == "keras.optimizers"


def test_a_file_of_another_model_is_not_loaded_as_a_distiller(tmp_path):
    mlp(4).save(tmp_path / "student.keras")
    with pytest.raises(ValueError, match="does not hold a distiller, but .student"):
        keras_dskd.Distiller.load(tmp_path / "student.keras")
