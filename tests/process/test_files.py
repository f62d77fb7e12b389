"""Files of a distiller, written in one process and read in another."""

import os
import signal
import textwrap

import interpreter
import keras
import numpy as np
import pytest
import resumable
from small_models import crossentropy, labels, mlp, rows

import keras_dskd
from keras_dskd.internal import files

RESUMABLE = interpreter.TESTS / "resumable.py"


def test_a_process_killed_at_a_step_resumes_to_the_uninterrupted_result(tmp_path):
    keras.utils.set_random_seed(0)
    uninterrupted = resumable.distiller()
    resumable.fit(uninterrupted)
    interpreter.run(RESUMABLE, 7, tmp_path, exit_status=-signal.SIGKILL)
    resumed = resumable.distiller()
    resumable.fit(resumed, callbacks=[resumable.backup(tmp_path)])
    for received, expected in zip(
        resumed.student.get_weights(), uninterrupted.student.get_weights(), strict=True
    ):
        # The same float32 program through some steps of training.
        np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)


def test_another_program_loads_the_student_without_the_package(tmp_path):
    """And the distiller in safe mode, with no class or function of this program."""
    x = {"teacher": rows(8, 6, seed=1), "student": rows(8, 4, seed=2)}
    y = labels(8)
    made = keras_dskd.Distiller(
        mlp(6, name="teacher", seed=10),
        mlp(4, hidden=2),
        [
            keras_dskd.losses.SoftTargets(2.0),
            keras_dskd.losses.ChannelIndependence("hidden", "hidden"),
            keras.distillation.FeatureDistillation("mae", "hidden", "hidden"),
        ],
        distillation_loss_weights=[
            1.0,
            keras.optimizers.schedules.PolynomialDecay(0.0, 6, 1.0),
            0.0,
        ],
        projectors={"hidden": keras.layers.Dense(5)},
    )
    made.compile("adam", crossentropy(), metrics=["accuracy"])
    made.fit(x, y, batch_size=4, verbose=0)
    made.save(tmp_path / "distiller.keras")
    made.student.save(tmp_path / "student.keras")
    np.savez(tmp_path / "data.npz", y=y, **x)
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
    interpreter.run("-c", textwrap.dedent(program), cwd=tmp_path)
    expected = made.student.predict(x["student"], verbose=0)
    for name in ("by_student", "by_distiller"):
        predicted = np.load(tmp_path / f"{name}.npy")
        np.testing.assert_allclose(predicted, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.backend_neutral
def test_killed_process_leaves_no_lock(tmp_path):
    code = (
        "import os, signal, sys, keras_dskd.internal.files as files\n"
        "with files.holding(sys.argv[1]), files.replacing(sys.argv[2]):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    lock, file = str(tmp_path / ".lock"), tmp_path / "a.txt"
    interpreter.run("-c", code, lock, file, exit_status=-signal.SIGKILL)
    assert len(os.listdir(tmp_path)) == 3
    with files.replacing(file) as written:
        with open(written, "w") as opened:
            opened.write("whole")
    with files.holding(lock):
        pass
    assert os.listdir(tmp_path) == ["a.txt"]
