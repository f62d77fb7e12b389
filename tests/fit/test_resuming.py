"""Training that is stopped anywhere, and goes on as if it never was."""

import importlib.util
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import resumable
from keras import ops
from small_models import Subclassed, copy_of, crossentropy, labels, mlp, rows

import keras_dskd

# The same float32 program again, or one of another backend, through some steps.
TRAINED = {"rtol": 1e-4, "atol": 1e-5}


def run(task, folder, backend=None):
    """`resumable.py` in a process of its own; its exit status."""
    tests = Path(__file__).parents[1]
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend or keras.backend.backend(),
        "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)]),
    }
    result = subprocess.run(
        [sys.executable, tests / "resumable.py", task, folder],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode in (0, -signal.SIGKILL), result.stderr
    return result.returncode


def state(made):
    """All that changes in training, as arrays."""
    seeds = {id(v) for v in made.weights} | {id(v) for v in made.metrics_variables}
    return [
        *made.get_weights(),
        *(ops.convert_to_numpy(v) for v in made.optimizer.variables),
        *(ops.convert_to_numpy(v) for v in made.variables if id(v) not in seeds),
    ]


def assert_states(received, expected, **tolerance):
    for one, other in zip(received, expected, strict=True):
        np.testing.assert_allclose(one, other, **(tolerance or TRAINED))


@pytest.fixture(scope="module")
def uninterrupted():
    keras.utils.set_random_seed(0)
    made = resumable.distiller()
    initial = state_to_start_from(made)
    resumable.fit(made)
    return initial, state(made), made.student.get_weights()


def state_to_start_from(made):
    return [ops.convert_to_numpy(variable) for variable in made.variables]


def started_alike(initial):
    made = resumable.distiller()
    for variable, value in zip(made.variables, initial, strict=True):
        variable.assign(value)
    return made


class Interrupted(Exception):
    pass


def interrupt():
    raise Interrupted


# Stopped and restored


@pytest.mark.parametrize("step", [1, 6, 8])
def test_a_run_stopped_at_a_step_ends_where_the_uninterrupted_one_does(
    step, uninterrupted, tmp_path
):
    """In the first epoch, in the middle of another, and at the end of one."""
    initial, expected, _ = uninterrupted
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(Interrupted):
        resumable.fit(
            started_alike(initial), callbacks=[backup, resumable.At(step, interrupt)]
        )
    again = started_alike(initial)
    resumable.fit(
        again, callbacks=[keras.callbacks.BackupAndRestore(tmp_path / "backup")]
    )
    assert_states(state(again), expected)


def test_a_process_killed_at_a_step_ends_where_the_uninterrupted_one_does(
    uninterrupted, tmp_path
):
    assert run("7", tmp_path) == -signal.SIGKILL
    assert run("0", tmp_path) == 0
    student = resumable.distiller().student
    student.load_weights(tmp_path / "student.weights.h5")
    assert_states(student.get_weights(), uninterrupted[-1])


def test_a_backup_within_an_epoch_holds_the_state_of_its_step(tmp_path):
    """Keras then repeats the epoch from its first batch, with this state."""
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", save_freq=3)
    broken = resumable.distiller()
    with pytest.raises(Interrupted):
        resumable.fit(broken, callbacks=[backup, resumable.At(3, interrupt)])
    again = resumable.distiller()
    if keras.backend.backend() == "jax":
        broken.jax_state_sync()
    again.load_weights(tmp_path / "backup" / "latest.weights.h5")
    assert_states(state(again), state(broken), rtol=0, atol=0)


def test_the_best_checkpoint_goes_on_as_the_run_did(tmp_path):
    made = resumable.distiller()
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "epoch-{epoch}.keras")
    resumable.fit(made, callbacks=[checkpoint])
    loaded = keras.models.load_model(tmp_path / "epoch-2.keras")
    resumable.fit(loaded, initial_epoch=2)
    assert_states(state(loaded), state(made))


def test_random_layers_go_on_with_the_numbers_that_come_next(tmp_path):
    made = resumable.distiller()
    resumable.fit(made, 1)
    made.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    gap = np.ones((4, 4), "float32")
    drawn = [
        ops.convert_to_numpy(one.student.get_layer("drop")(gap, training=True))
        for one in (made, loaded, loaded)
    ]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[1], drawn[2])


def test_a_file_of_other_random_layers_is_refused(tmp_path):
    made = resumable.distiller()
    resumable.fit(made, 1)
    made.save_weights(tmp_path / "distiller.weights.h5")
    with h5py.File(tmp_path / "distiller.weights.h5", "r+") as file:
        del file["_seed_states/vars/0"]
    with pytest.raises(ValueError, match="the states of 1 random layers. Received: 0"):
        made.load_weights(tmp_path / "distiller.weights.h5")


# Other backends


@pytest.mark.parametrize("saved_on", ["jax", "tensorflow", "torch"])
def test_a_run_saved_on_one_backend_goes_on_on_another(saved_on, tmp_path):
    if importlib.util.find_spec(saved_on) is None:
        pytest.skip(f"{saved_on} is not installed")
    assert run("save", tmp_path, saved_on) == 0
    expected = np.load(tmp_path / "expected.npz")
    loaded = keras.models.load_model(tmp_path / "distiller.keras", safe_mode=True)
    by_weights = resumable.distiller()
    by_weights.load_weights(tmp_path / "distiller.weights.h5")
    for made in (loaded, by_weights):
        # What random layers draw differs between backends.
        made.student.get_layer("drop").rate = 0.0
        received = resumable.fit(made, 2)
        assert set(received) == set(expected)
        for name, values in received.items():
            # Eight steps of Adam in float32, which enlarges small differences.
            np.testing.assert_allclose(values, expected[name], rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("chosen", ["auto", False])
def test_compilation_is_chosen_again_on_loading(chosen, tmp_path):
    """Keras would store what "auto" meant on the backend that saved."""
    made = resumable.distiller()
    made.compile("adam", crossentropy(), jit_compile=chosen)
    assert made.get_compile_config()["jit_compile"] == chosen
    made.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    assert loaded.get_compile_config()["jit_compile"] == chosen
    assert loaded.jit_compile == made.jit_compile


# Files without the teacher


def groups(path):
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            with (
                archive.open("model.weights.h5") as weights,
                h5py.File(weights) as file,
            ):
                return set(file)
    with h5py.File(path) as file:
        return set(file)


def test_a_file_without_the_teacher_goes_on_with_the_teacher_given(tmp_path):
    made = resumable.distiller()
    resumable.fit(made, 1)
    path = tmp_path / "distiller.keras"
    made.save(path, include_teacher=False)
    assert "teacher" not in groups(path)
    teacher = copy_of(made.teacher)
    loaded = keras_dskd.Distiller.load(path, teacher=teacher)
    assert loaded.teacher is teacher
    assert_states(state(loaded), state(made), rtol=0, atol=0)
    expected, received = resumable.fit(made, 2), resumable.fit(loaded, 2)
    for name, values in expected.items():
        np.testing.assert_allclose(received[name], values, **TRAINED)
    assert_states(state(loaded), state(made))
    # It was saved without, and is so again.
    loaded.save(path)
    assert "teacher" not in groups(path)
    assert loaded.teacher is teacher


def test_files_are_those_of_a_distiller_that_keeps_its_teacher_when_not_asked(tmp_path):
    made = resumable.distiller()
    made.save(tmp_path / "a.keras")
    made.save_weights(tmp_path / "a.weights.h5")
    assert "teacher" in groups(tmp_path / "a.keras") & groups(tmp_path / "a.weights.h5")
    loaded = keras_dskd.Distiller.load(tmp_path / "a.keras")
    assert_states(loaded.teacher.get_weights(), made.teacher.get_weights(), atol=0)


def test_checkpoints_of_callbacks_leave_the_teacher_out_when_told_to(
    uninterrupted, tmp_path
):
    initial, expected, _ = uninterrupted
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
    assert_states(state(again), expected)


def test_weights_without_a_teacher_leave_the_distillers_own_as_it_is(tmp_path):
    made, other = resumable.distiller(), resumable.distiller()
    resumable.fit(made, 1)
    teacher = [weight + 1.0 for weight in other.teacher.get_weights()]
    other.teacher.set_weights(teacher)
    for name in ("distiller.weights.h5", "distiller.keras"):
        save = made.save if name.endswith(".keras") else made.save_weights
        save(tmp_path / name, include_teacher=False)
        other.load_weights(tmp_path / name)
        assert_states(other.teacher.get_weights(), teacher, rtol=0, atol=0)
        assert_states(other.student.get_weights(), made.student.get_weights(), atol=0)


def test_a_file_without_the_teacher_says_how_to_load_it(tmp_path):
    made = resumable.distiller()
    made.save(tmp_path / "distiller.keras", include_teacher=False)
    with pytest.raises(ValueError, match=r"Distiller.load\(filepath, teacher=...\)"):
        keras.models.load_model(tmp_path / "distiller.keras")


def test_another_teacher_than_that_of_the_file_is_refused(tmp_path):
    made = resumable.distiller()
    made.save(tmp_path / "without.keras", include_teacher=False)
    other = copy_of(made.teacher)
    other.set_weights([weight + 1e-3 for weight in other.get_weights()])
    with pytest.raises(ValueError, match="is not the one .* their weights differ"):
        keras_dskd.Distiller.load(tmp_path / "without.keras", teacher=other)
    made.save(tmp_path / "with.keras")
    with pytest.raises(ValueError, match="The file includes its teacher"):
        keras_dskd.Distiller.load(tmp_path / "with.keras", teacher=other)


# Written completely, or not at all


class CannotBeSaved(keras.layers.Layer):
    """Stands for a full disk."""

    def call(self, inputs):
        return inputs

    def save_own_variables(self, store):
        raise OSError("No space left on device")


@pytest.mark.parametrize("name", ["distiller.keras", "distiller.weights.h5"])
def test_a_failure_while_writing_leaves_the_older_file_as_it_was(name, tmp_path):
    made = resumable.distiller()
    save = "save" if name.endswith(".keras") else "save_weights"
    getattr(made, save)(tmp_path / name)
    before = (tmp_path / name).read_bytes()
    student = keras.Sequential([keras.Input((4,)), CannotBeSaved(), mlp(4)])
    failing = keras_dskd.Distiller(
        mlp(6, name="teacher"), student, keras_dskd.losses.SoftTargets()
    )
    for include_teacher in (True, False):
        with pytest.raises(OSError, match="No space left"):
            getattr(failing, save)(tmp_path / name, include_teacher=include_teacher)
        assert (tmp_path / name).read_bytes() == before
        assert os.listdir(tmp_path) == [name]
        assert failing.teacher.name == "teacher"


def test_what_a_killed_process_left_half_written_is_cleared_away(tmp_path):
    left = tmp_path / ".partial-distiller.keras"
    left.mkdir()
    (left / "distiller.keras").write_bytes(b"half")
    made = resumable.distiller()
    made.save(tmp_path / "distiller.keras")
    assert os.listdir(tmp_path) == ["distiller.keras"]
    assert_states(
        keras.models.load_model(tmp_path / "distiller.keras").get_weights(),
        made.get_weights(),
        atol=0,
    )


def test_a_file_through_a_link_stays_where_it_is(tmp_path):
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
    assert_states(other.get_weights(), made.get_weights(), atol=0)


def test_shards_without_the_teacher_are_refused(tmp_path):
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
def test_a_file_of_another_format_is_refused(name, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        resumable.distiller().save(tmp_path / name)


def test_a_folder_takes_the_place_of_a_file_when_asked_for(tmp_path):
    made = resumable.distiller()
    made.save(tmp_path / "distiller", zipped=False)
    loaded = keras.models.load_model(tmp_path / "distiller")
    assert_states(loaded.get_weights(), made.get_weights(), atol=0)


# The student of a distiller's file


@keras.saving.register_keras_serializable(package="tests")
class WithOwnVariable(Subclassed):
    """A subclassed model with a variable of its own, beside its layers'."""

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
    "student", [lambda: mlp(4), sequential, Subclassed, WithOwnVariable]
)
@pytest.mark.parametrize("name", ["d.keras", "d.weights.h5"])
@pytest.mark.parametrize("include_teacher", [True, False])
def test_the_plain_student_loads_a_distillers_file(
    student, name, include_teacher, tmp_path
):
    x = {"teacher": rows(8, 6, seed=1), "student": rows(8, 4, seed=2)}
    made = keras_dskd.Distiller(
        mlp(6, name="teacher"), student(), keras_dskd.losses.SoftTargets()
    )
    made.compile("adam", crossentropy())
    made.fit(x, labels(8), verbose=0)
    save = made.save if name.endswith(".keras") else made.save_weights
    save(tmp_path / name, include_teacher=include_teacher)
    plain = student()
    plain(x["student"])
    plain.load_weights(tmp_path / name)
    assert_states(plain.get_weights(), made.student.get_weights(), rtol=0, atol=0)
    # And the distiller, from the same file.
    made.student.set_weights([0.0 * weight for weight in plain.get_weights()])
    made.load_weights(tmp_path / name)
    assert_states(made.student.get_weights(), plain.get_weights(), rtol=0, atol=0)


# Safe mode


def with_lambda(width, name):
    inputs = keras.Input((width,))
    x = keras.layers.Lambda(lambda x: 2 * x, name="double")(inputs)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x), name=name)


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_a_lambda_layer_is_named_when_a_file_could_not_be_loaded_safely(role, tmp_path):
    models = {"teacher": mlp(6, name="teacher"), "student": mlp(4)}
    models[role] = with_lambda(6 if role == "teacher" else 4, role)
    made = keras_dskd.Distiller(
        **models, distillation_losses=[keras_dskd.losses.SoftTargets()]
    )
    path = tmp_path / "distiller.keras"
    with pytest.raises(ValueError, match=f"(?s)Found in: .*{role}.*double"):
        made.save(path)
    made.save_weights(tmp_path / "distiller.weights.h5")
    if role == "teacher":
        made.save(path, include_teacher=False)
        loaded = keras_dskd.Distiller.load(path, teacher=models["teacher"])
        assert_states(loaded.get_weights(), made.get_weights(), atol=0)


# Keras itself warns of it.
@pytest.mark.filterwarnings("ignore:The object being serialized:UserWarning")
def test_a_lambda_as_the_compiled_loss_is_named(tmp_path):
    made = resumable.distiller()
    made.compile("adam", lambda y, logits: ops.mean(logits, axis=-1))
    with pytest.raises(ValueError, match="cannot be loaded safely .*compile/loss"):
        made.save(tmp_path / "distiller.keras")
    assert not os.listdir(tmp_path)
