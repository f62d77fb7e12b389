"""Files of a distiller: what they hold, and that training resumes from them."""

import json
import os
import zipfile

import h5py
import keras
import numpy as np
import pytest
import resumable
from keras import ops
from small_models import Subclassed, copy_of, crossentropy, labels, mlp, rows

import keras_dskd

FeatureDistillation = keras.distillation.FeatureDistillation
SoftTargets = keras_dskd.losses.SoftTargets

X = {"teacher": rows(8, 6, seed=1), "student": rows(8, 4, seed=2)}
Y = labels(8)

# The same float32 program again, through some steps of training.
TRAINED = {"rtol": 1e-4, "atol": 1e-5}
EXACTLY = {"rtol": 0, "atol": 0}


def distiller(losses=None, teacher=None, student=None, optimizer="adam", **kwargs):
    made = keras_dskd.Distiller(
        teacher or mlp(6, name="teacher", seed=10),
        student or mlp(4),
        losses or [SoftTargets(2.0), FeatureDistillation()],
        **kwargs,
    )
    made.compile(optimizer, crossentropy(), metrics=["accuracy"])
    return made


def fit(made, x=X):
    return made.fit(x, Y, batch_size=4, shuffle=False, verbose=0).history


def saved_and_loaded(made, folder):
    made.save(folder / "distiller.keras")
    return keras.models.load_model(folder / "distiller.keras")


def state(made):
    """Everything that training changes, as arrays."""
    seen = {id(v) for v in made.weights} | {id(v) for v in made.metrics_variables}
    return [
        *made.get_weights(),
        *(ops.convert_to_numpy(v) for v in made.optimizer.variables),
        *(ops.convert_to_numpy(v) for v in made.variables if id(v) not in seen),
    ]


def assert_close(received, expected, **tolerance):
    for one, other in zip(received, expected, strict=True):
        np.testing.assert_allclose(one, other, **(tolerance or TRAINED))


def groups(path):
    """The top-level names in a weights file, or in that of a `.keras` file."""
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            with (
                archive.open("model.weights.h5") as weights,
                h5py.File(weights) as file,
            ):
                return set(file)
    with h5py.File(path) as file:
        return set(file)


# Resuming


@pytest.fixture(scope="module")
def uninterrupted():
    """The variables before a run that nothing stops, and the state after it."""
    keras.utils.set_random_seed(0)
    made = resumable.distiller()
    initial = [ops.convert_to_numpy(variable) for variable in made.variables]
    resumable.fit(made)
    return initial, state(made)


def started_alike(initial):
    made = resumable.distiller()
    for variable, value in zip(made.variables, initial, strict=True):
        variable.assign(value)
    return made


class Interrupted(Exception):
    pass


def interrupt():
    raise Interrupted


@pytest.mark.parametrize("step", [1, 6, 8])
def test_backup_and_restore_ends_where_the_uninterrupted_run_does(
    step, uninterrupted, tmp_path
):
    """Stopped in the first epoch, in the middle of another, and at the end of one."""
    initial, expected = uninterrupted
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(Interrupted):
        resumable.fit(
            started_alike(initial), callbacks=[backup, resumable.At(step, interrupt)]
        )
    again = started_alike(initial)
    resumable.fit(
        again, callbacks=[keras.callbacks.BackupAndRestore(tmp_path / "backup")]
    )
    assert_close(state(again), expected)


def test_a_backup_within_an_epoch_holds_the_state_of_its_step(tmp_path):
    """On resuming, Keras repeats the epoch from its first batch, in this state."""
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", save_freq=3)
    broken = resumable.distiller()
    with pytest.raises(Interrupted):
        resumable.fit(broken, callbacks=[backup, resumable.At(3, interrupt)])
    again = resumable.distiller()
    if keras.backend.backend() == "jax":
        broken.jax_state_sync()
    again.load_weights(tmp_path / "backup" / "latest.weights.h5")
    assert_close(state(again), state(broken), **EXACTLY)


def test_a_checkpoint_resumes_like_the_uninterrupted_run(tmp_path):
    """Student, projector, optimizer, schedule and random layers all continue."""
    made = resumable.distiller()
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "epoch-{epoch}.keras")
    expected = resumable.fit(made, callbacks=[checkpoint])
    loaded = keras.models.load_model(tmp_path / "epoch-2.keras")
    received = resumable.fit(loaded, initial_epoch=2)
    assert set(received) == set(expected)
    for name, values in received.items():
        np.testing.assert_allclose(values, expected[name][2:], **TRAINED)
    assert_close(state(loaded), state(made))


def test_random_layers_continue_their_sequence(tmp_path):
    made = resumable.distiller()
    resumable.fit(made, 1)
    loaded = saved_and_loaded(made, tmp_path)
    gap = np.ones((4, 4), "float32")
    drawn = [
        ops.convert_to_numpy(one.student.get_layer("drop")(gap, training=True))
        for one in (made, loaded, loaded)
    ]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[1], drawn[2])


def test_a_file_of_other_random_layers_raises(tmp_path):
    made = resumable.distiller()
    resumable.fit(made, 1)
    made.save_weights(tmp_path / "distiller.weights.h5")
    with h5py.File(tmp_path / "distiller.weights.h5", "r+") as file:
        del file["_seed_states/vars/0"]
    with pytest.raises(ValueError, match="the states of 1 random layers. Received: 0"):
        made.load_weights(tmp_path / "distiller.weights.h5")


@pytest.mark.parametrize("name", ["distiller.keras", "distiller.weights.h5"])
def test_weights_of_losses_assigned_since_construction_are_saved(name, tmp_path):
    made, other = distiller(), distiller()
    fit(made), fit(other)
    made.distillation_loss_weights[1] = 3.0
    made.student_loss_weight = 0.75
    save = made.save if name.endswith(".keras") else made.save_weights
    save(tmp_path / name)
    other.load_weights(tmp_path / name)
    loaded = [other]
    if name.endswith(".keras"):
        loaded.append(keras.models.load_model(tmp_path / name))
    for one in loaded:
        assert one.distillation_loss_weights == [1.0, 3.0]
        assert one.student_loss_weight == 0.75


@pytest.mark.parametrize("chosen", ["auto", False])
def test_compilation_is_chosen_again_on_loading(chosen, tmp_path):
    """Keras would store the meaning of "auto" on the backend that saved the file."""
    made = resumable.distiller()
    made.compile("adam", crossentropy(), jit_compile=chosen)
    assert made.get_compile_config()["jit_compile"] == chosen
    loaded = saved_and_loaded(made, tmp_path)
    assert loaded.get_compile_config()["jit_compile"] == chosen
    assert loaded.jit_compile == made.jit_compile


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.Adam(),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(momentum=0.9)),
    ],
    ids=["plain", "with loss scaling"],
)
def test_the_optimizer_is_saved_under_a_name_that_all_backends_know(optimizer):
    made = distiller()
    made.compile(optimizer(), crossentropy())
    saved = made.get_compile_config()["optimizer"]
    assert saved["module"] == "keras.optimizers"
    inner = saved["config"].get("inner_optimizer")
    assert inner is None or inner["module"] == "keras.optimizers"


# What a `.keras` file restores


def test_the_teacher_and_its_trainable_flags_are_restored(tmp_path):
    teacher = mlp(6, name="teacher", seed=10)
    teacher.get_layer("hidden").trainable = False
    loaded = saved_and_loaded(distiller(teacher=teacher), tmp_path)
    assert_close(loaded.teacher.get_weights(), teacher.get_weights(), **EXACTLY)
    assert not loaded.teacher.get_layer("hidden").trainable
    assert loaded.teacher.get_layer("logits").trainable
    assert len(loaded.trainable_variables) == 4


def test_an_untrained_distiller_is_saved_and_trains(tmp_path):
    """Its projector has no weights yet."""
    made = distiller(
        FeatureDistillation("mse", "hidden", "hidden"),
        student=mlp(4, hidden=2),
        projectors={"hidden": keras.layers.Dense(5)},
    )
    loaded = saved_and_loaded(made, tmp_path)
    assert_close(loaded.student.get_weights(), made.student.get_weights(), **EXACTLY)
    assert np.isfinite(fit(loaded)["loss"][0])
    assert len(loaded.trainable_variables) == 6


def test_an_uncompiled_distiller_is_saved(tmp_path):
    made = keras_dskd.Distiller(mlp(6, name="teacher"), mlp(4), SoftTargets())
    loaded = saved_and_loaded(made, tmp_path)
    loaded.compile("adam", crossentropy())
    assert np.isfinite(fit(loaded)["loss"][0])


def test_name_weights_and_losses_are_restored(tmp_path):
    schedule = keras.optimizers.schedules.CosineDecay(0.5, 10)
    made = distiller(
        [
            keras_dskd.losses.SpatialUniformity("hidden", 3.0, "positions"),
            FeatureDistillation("mae", "hidden", "hidden"),
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


def test_subclassed_models_are_restored(tmp_path):
    teacher, student = Subclassed(name="teacher"), Subclassed(name="student")
    teacher(X["teacher"])
    made = distiller(
        FeatureDistillation("mse", "hidden", "hidden"), teacher=teacher, student=student
    )
    fit(made)
    loaded = saved_and_loaded(made, tmp_path)
    assert_close(loaded.get_weights(), made.get_weights(), **EXACTLY)
    expected, received = fit(made), fit(loaded)
    assert received["loss"] == pytest.approx(expected["loss"], rel=1e-5)  # float32


def sharing(seed):
    """A distiller whose models share a backbone, trained for an epoch."""
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


def test_saving_models_that_share_a_backbone_raises(tmp_path):
    """Keras writes a shared layer once, and would load it into only one model."""
    made = sharing(seed=0)
    with pytest.raises(ValueError, match="share layers cannot .* Shared: .*'shared'"):
        made.save(tmp_path / "distiller.keras")


def test_models_that_share_a_backbone_are_saved_separately_or_by_weights(tmp_path):
    made = sharing(seed=0)
    for model in (made.student, made.teacher):
        path = os.path.join(tmp_path, f"{model.name}.keras")
        model.save(path)
        assert_close(
            keras.models.load_model(path).get_weights(), model.get_weights(), **EXACTLY
        )
    path = os.path.join(tmp_path, "distiller.weights.h5")
    made.save_weights(path)
    fresh = sharing(seed=1)
    fresh.load_weights(path)
    assert_close(fresh.student.get_weights(), made.student.get_weights(), **EXACTLY)
    assert_close(fresh.teacher.get_weights(), made.teacher.get_weights(), **EXACTLY)
    assert fresh.student.get_layer("shared") is fresh.teacher.get_layer("shared")


@keras.saving.register_keras_serializable(package="tests")
class Through(keras.distillation.DistillationLoss):
    """A user's loss with an option and a trained layer."""

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


def test_a_registered_loss_is_restored_with_its_trained_layer(tmp_path):
    made = distiller(Through(2.0, keras.layers.Dense(5)), student=mlp(4, hidden=2))
    fit(made)
    loaded = saved_and_loaded(made, tmp_path)
    (loss,) = loaded.distillation_losses
    assert loss.scale == 2.0
    assert_close(
        loss.layer.get_weights(),
        made.distillation_losses[0].layer.get_weights(),
        **EXACTLY,
    )
    expected, received = fit(made), fit(loaded)
    assert received["through"] == pytest.approx(expected["through"], rel=1e-4)
    assert len(loaded.trainable_variables) == 6


@keras.saving.register_keras_serializable(package="tests")
def rising(step):
    return 0.1 * ops.cast(step, "float32")


def test_a_registered_function_as_a_weight_is_restored(tmp_path):
    made = distiller(FeatureDistillation(), distillation_loss_weights=rising)
    fit(made)
    loaded = saved_and_loaded(made, tmp_path)
    assert loaded.distillation_loss_weights == [rising]
    expected, received = fit(made), fit(loaded)
    name = "distillation_loss"
    assert received[name] == pytest.approx(expected[name], rel=1e-4)  # float32


def test_saving_a_lambda_as_a_weight_raises(tmp_path):
    made = distiller(FeatureDistillation(), distillation_loss_weights=lambda step: 1.0)
    fit(made)
    with pytest.raises(ValueError, match="A lambda as a weight cannot be saved. Use a"):
        made.save(tmp_path / "distiller.keras")


def test_loading_a_file_of_another_model_raises(tmp_path):
    mlp(4).save(tmp_path / "student.keras")
    with pytest.raises(ValueError, match="does not hold a distiller, but .student"):
        keras_dskd.Distiller.load(tmp_path / "student.keras")


# Files without the teacher


def test_a_file_without_the_teacher_resumes_with_the_teacher_given(tmp_path):
    made = resumable.distiller()
    resumable.fit(made, 1)
    path = tmp_path / "distiller.keras"
    made.save(path, include_teacher=False)
    assert "teacher" not in groups(path)
    teacher = copy_of(made.teacher)
    loaded = keras_dskd.Distiller.load(path, teacher=teacher)
    assert loaded.teacher is teacher
    assert_close(state(loaded), state(made), **EXACTLY)
    expected, received = resumable.fit(made, 2), resumable.fit(loaded, 2)
    for name, values in expected.items():
        np.testing.assert_allclose(received[name], values, **TRAINED)
    assert_close(state(loaded), state(made))
    # The next file leaves the teacher out again.
    loaded.save(path)
    assert "teacher" not in groups(path)
    assert loaded.teacher is teacher


def test_files_include_the_teacher_by_default(tmp_path):
    made = resumable.distiller()
    made.save(tmp_path / "a.keras")
    made.save_weights(tmp_path / "a.weights.h5")
    assert "teacher" in groups(tmp_path / "a.keras") & groups(tmp_path / "a.weights.h5")
    loaded = keras_dskd.Distiller.load(tmp_path / "a.keras")
    assert_close(loaded.teacher.get_weights(), made.teacher.get_weights(), **EXACTLY)


def test_callbacks_leave_the_teacher_out_if_saves_teacher_is_false(
    uninterrupted, tmp_path
):
    initial, expected = uninterrupted
    broken, again = started_alike(initial), started_alike(initial)
    for made in (broken, again):
        made.saves_teacher = False

    def callbacks():
        return [
            keras.callbacks.BackupAndRestore(tmp_path / "backup"),
            keras.callbacks.ModelCheckpoint(tmp_path / "last.keras"),
            keras.callbacks.ModelCheckpoint(
                tmp_path / "last.weights.h5", save_weights_only=True
            ),
        ]

    with pytest.raises(Interrupted):
        resumable.fit(broken, callbacks=[*callbacks(), resumable.At(6, interrupt)])
    for path in ("backup/latest.weights.h5", "last.keras", "last.weights.h5"):
        assert "teacher" not in groups(tmp_path / path)
    resumable.fit(again, callbacks=callbacks())
    assert_close(state(again), expected)


def test_weights_without_a_teacher_leave_the_teacher_unchanged(tmp_path):
    made, other = resumable.distiller(), resumable.distiller()
    resumable.fit(made, 1)
    teacher = [weight + 1.0 for weight in other.teacher.get_weights()]
    other.teacher.set_weights(teacher)
    for name in ("distiller.weights.h5", "distiller.keras"):
        save = made.save if name.endswith(".keras") else made.save_weights
        save(tmp_path / name, include_teacher=False)
        other.load_weights(tmp_path / name)
        assert_close(other.teacher.get_weights(), teacher, **EXACTLY)
        assert_close(other.student.get_weights(), made.student.get_weights(), **EXACTLY)


def test_loading_a_file_without_the_teacher_raises_and_says_how(tmp_path):
    made = resumable.distiller()
    made.save(tmp_path / "distiller.keras", include_teacher=False)
    with pytest.raises(ValueError, match=r"Distiller.load\(filepath, teacher=...\)"):
        keras.models.load_model(tmp_path / "distiller.keras")


def test_a_different_teacher_raises(tmp_path):
    made = resumable.distiller()
    made.save(tmp_path / "without.keras", include_teacher=False)
    other = copy_of(made.teacher)
    other.set_weights([weight + 1e-3 for weight in other.get_weights()])
    with pytest.raises(ValueError, match="is not the one .* their weights differ"):
        keras_dskd.Distiller.load(tmp_path / "without.keras", teacher=other)
    made.save(tmp_path / "with.keras")
    with pytest.raises(ValueError, match="The file includes its teacher"):
        keras_dskd.Distiller.load(tmp_path / "with.keras", teacher=other)


# Complete files, or none


class CannotBeSaved(keras.layers.Layer):
    """Fails like a full disk."""

    def call(self, inputs):
        return inputs

    def save_own_variables(self, store):
        raise OSError("No space left on device")


@pytest.mark.parametrize("name", ["distiller.keras", "distiller.weights.h5"])
def test_a_failure_while_writing_leaves_the_older_file_unchanged(name, tmp_path):
    made = resumable.distiller()
    save = "save" if name.endswith(".keras") else "save_weights"
    getattr(made, save)(tmp_path / name)
    before = (tmp_path / name).read_bytes()
    student = keras.Sequential([keras.Input((4,)), CannotBeSaved(), mlp(4)])
    failing = keras_dskd.Distiller(mlp(6, name="teacher"), student, SoftTargets())
    for include_teacher in (True, False):
        with pytest.raises(OSError, match="No space left"):
            getattr(failing, save)(tmp_path / name, include_teacher=include_teacher)
        assert (tmp_path / name).read_bytes() == before
        assert os.listdir(tmp_path) == [name]
        assert failing.teacher.name == "teacher"


def test_files_left_by_a_killed_process_are_removed(tmp_path):
    left = tmp_path / ".partial-distiller.keras-01234567"
    left.mkdir()
    (left / "distiller.keras").write_bytes(b"half")
    made = resumable.distiller()
    made.save(tmp_path / "distiller.keras")
    assert os.listdir(tmp_path) == ["distiller.keras"]
    assert_close(
        keras.models.load_model(tmp_path / "distiller.keras").get_weights(),
        made.get_weights(),
        atol=0,
    )


def test_saving_through_a_link_writes_its_target(tmp_path):
    (tmp_path / "disk").mkdir()
    target = tmp_path / "disk" / "distiller.weights.h5"
    target.write_bytes(b"older")
    (tmp_path / "link.weights.h5").symlink_to(target)
    resumable.distiller().save_weights(tmp_path / "link.weights.h5")
    assert (tmp_path / "link.weights.h5").is_symlink()
    assert "student" in groups(target)


def test_weights_in_shards_are_saved_and_loaded(tmp_path):
    made, other = resumable.distiller(), resumable.distiller()
    resumable.fit(made, 1)
    made.save_weights(tmp_path / "distiller.weights.json", max_shard_size=0.001)
    other.load_weights(tmp_path / "distiller.weights.json")
    assert_close(other.get_weights(), made.get_weights(), **EXACTLY)


def test_shards_without_the_teacher_raise(tmp_path):
    with pytest.raises(
        ValueError, match="saved in one file. Received: max_shard_size=1"
    ):
        resumable.distiller().save_weights(
            tmp_path / "d.weights.json", max_shard_size=1, include_teacher=False
        )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("d.h5", "distiller to a `.keras` file"),
        ("d.weights.h5", "`save_weights` to a `.weights.h5` file"),
        ("d", "Invalid file"),
    ],
)
def test_a_file_of_another_format_raises(name, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        resumable.distiller().save(tmp_path / name)


def test_a_folder_is_written_if_not_zipped(tmp_path):
    made = resumable.distiller()
    made.save(tmp_path / "distiller", zipped=False)
    loaded = keras.models.load_model(tmp_path / "distiller")
    assert_close(loaded.get_weights(), made.get_weights(), **EXACTLY)


# The plain student loads a distiller's file


@keras.saving.register_keras_serializable(package="tests")
class WithOwnVariable(Subclassed):
    """A subclassed model with a variable beside those of its layers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.scale = self.add_weight(name="scale", shape=(), initializer="ones")

    def call(self, inputs):
        return self.scale * super().call(inputs)


def sequential():
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(5), keras.layers.Dense(3)]
    )


@pytest.mark.parametrize(
    "student",
    [lambda: mlp(4), sequential, Subclassed, WithOwnVariable],
    ids=["functional", "sequential", "subclassed", "own variable"],
)
def test_the_plain_student_loads_a_distillers_file(student, tmp_path):
    made = distiller(SoftTargets(), student=student())
    fit(made)
    expected = made.student.get_weights()
    plain = student()
    plain(X["student"])
    for include_teacher in (True, False):
        for name in ("d.keras", "d.weights.h5"):
            save = made.save if name == "d.keras" else made.save_weights
            save(tmp_path / name, include_teacher=include_teacher)
            for model in (plain, made.student):
                model.set_weights([0.0 * weight for weight in expected])
            plain.load_weights(tmp_path / name)
            assert_close(plain.get_weights(), expected, **EXACTLY)
            # The distiller loads the same file.
            made.load_weights(tmp_path / name)
            assert_close(made.student.get_weights(), expected, **EXACTLY)


# Safe mode


def with_lambda(width, name):
    inputs = keras.Input((width,))
    x = keras.layers.Lambda(lambda x: 2 * x, name="double")(inputs)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x), name=name)


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_a_lambda_layer_that_safe_mode_would_refuse_is_named(role, tmp_path):
    models = {"teacher": mlp(6, name="teacher"), "student": mlp(4)}
    models[role] = with_lambda(6 if role == "teacher" else 4, role)
    made = keras_dskd.Distiller(**models, distillation_losses=SoftTargets())
    path = tmp_path / "distiller.keras"
    with pytest.raises(ValueError, match=f"(?s)Found in: .*{role}.*double"):
        made.save(path)
    made.save_weights(tmp_path / "distiller.weights.h5")
    if role == "teacher":
        made.save(path, include_teacher=False)
        loaded = keras_dskd.Distiller.load(path, teacher=models["teacher"])
        assert_close(loaded.get_weights(), made.get_weights(), **EXACTLY)


# Keras warns of the lambda too.
@pytest.mark.filterwarnings("ignore:The object being serialized:UserWarning")
def test_a_lambda_as_the_compiled_loss_is_named(tmp_path):
    made = resumable.distiller()
    made.compile("adam", lambda y, logits: ops.mean(logits, axis=-1))
    with pytest.raises(ValueError, match="cannot be loaded safely .*compile/loss"):
        made.save(tmp_path / "distiller.keras")
    assert not os.listdir(tmp_path)


@pytest.mark.backend_neutral
@pytest.mark.parametrize("value", ["missing", None, "text", 3.5, [], {}])
def test_file_with_a_wrong_config_raises_value_error(value, tmp_path):
    made = keras_dskd.Distiller(
        mlp(4, name="teacher"), mlp(4), keras_dskd.losses.SoftTargets()
    )
    made.save(tmp_path / "good.keras")
    with zipfile.ZipFile(tmp_path / "good.keras") as good:
        content = {name: good.read(name) for name in good.namelist()}
    for name in ("teacher", "student", "distillation_losses", "student_loss_weight"):
        if name == "student_loss_weight" and value == 3.5:
            continue  # A number, which the constructor checks.
        config = json.loads(content["config.json"])
        config["config"][name] = value
        if value == "missing":
            del config["config"][name]
        with zipfile.ZipFile(tmp_path / "bad.keras", "w") as bad:
            for entry, data in content.items():
                is_config = entry == "config.json"
                bad.writestr(entry, json.dumps(config) if is_config else data)
        with pytest.raises(ValueError) as raised:
            keras.models.load_model(tmp_path / "bad.keras")
        is_container = isinstance(value, (list, dict))
        assert is_container or f"lacks '{name}', or it is of a wrong" in str(
            raised.value
        )
