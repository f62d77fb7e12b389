"""The examples, run as a newcomer runs them, at a small size."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_dskd

EXAMPLES = Path(__file__).parents[2] / "examples"
for needed in ("matplotlib", "sklearn"):
    pytest.importorskip(needed, reason=f"the examples need {needed}")
sys.path.insert(0, str(EXAMPLES))
models = pytest.importorskip("models")
training = pytest.importorskip("training")


def run(script, *arguments):
    return subprocess.run(
        [sys.executable, str(EXAMPLES / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": keras.backend.backend()},
    )


def check_outputs(folder, result):
    assert result.returncode == 0, result.stderr
    results = json.loads((folder / "results.json").read_text())
    assert results["backend"] == keras.backend.backend()
    for method in ("student alone", "+ soft targets", "+ dskd", "+ recommended"):
        assert method in result.stdout
        (accuracy,) = results["accuracy"][method]
        assert 0 <= accuracy <= 1
    for figure in ("structure.png", "history.png"):
        assert (folder / figure).read_bytes().startswith(b"\x89PNG")
    assert "+ recommended" in (folder / "structure.html").read_text(encoding="utf-8")
    return results


def test_quickstart_gives_a_model_a_table_and_a_picture(tmp_path):
    result = run("quickstart.py", "--seeds", 1, "--epochs", 2, "--out", tmp_path)
    results = check_outputs(tmp_path, result)
    assert (results["train_samples"], results["test_samples"]) == (1000, 797)
    student = keras.saving.load_model(tmp_path / "student.keras")
    assert student.predict(np.zeros((2, 8, 8, 1)), verbose=0).shape == (2, 10)


def test_features_on_the_sphere_are_animated(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="figures need Pillow")
    path = tmp_path / "sphere.gif"
    sizes = ("--epochs", 1, "--frames", 3, "--points", 20)
    result = run("sphere_animation.py", *sizes, "--out", path)
    assert result.returncode == 0, result.stderr
    with image.open(path) as animation:
        assert animation.format == "GIF"
        assert animation.width == 800
        # The last frame stands first; it is held at the end, and then counts once.
        assert animation.n_frames == 1 + 3
        assert animation.info["loop"] == 0


def paired_file(path, **changed):
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 100), ("test", 20)):
        arrays[f"strong_{part}"] = rng.integers(0, 256, (count, 16, 16, 3), "uint8")
        arrays[f"weak_{part}"] = rng.integers(0, 256, (count, 16, 16, 1), "uint8")
        arrays[f"y_{part}"] = np.arange(count) % 4
    arrays.update(changed)
    np.savez(path, **{key: a for key, a in arrays.items() if a is not None})
    return path


def test_optical_to_radar_runs_on_a_file_of_the_users_own(tmp_path):
    data = paired_file(tmp_path / "own.npz")
    out = tmp_path / "out"
    arguments = ("--data", data, "--seeds", 1, "--epochs", 1, "--out", out)
    check_outputs(out, run("optical_to_radar.py", *arguments))


def test_a_file_without_labels_is_refused(tmp_path):
    result = run(
        "optical_to_radar.py", "--data", paired_file(tmp_path / "f.npz", y_train=None)
    )
    assert result.returncode != 0
    assert "lacks ['y_train']" in result.stderr


def test_a_file_whose_rows_do_not_pair_is_refused(tmp_path):
    data = paired_file(tmp_path / "f.npz", y_test=np.zeros(3, int))
    result = run("optical_to_radar.py", "--data", data)
    assert result.returncode != 0
    assert "rows do not pair" in result.stderr


def test_help_describes_the_file():
    result = run("optical_to_radar.py", "--help")
    assert "strong_train" in result.stdout
    assert "uint8" in result.stdout


def test_the_learning_rate_rises_for_a_fifth_of_the_steps_and_falls_to_nothing():
    schedule = training.one_cycle(0.3, 100)
    rates = [float(schedule(step)) for step in range(101)]
    assert rates[0] == pytest.approx(0.01)
    assert np.argmax(rates) == 20
    assert rates[20] == pytest.approx(0.3)
    assert rates[60] == pytest.approx(0.15)  # Half way down.
    assert rates[100] == pytest.approx(0.0, abs=1e-8)


@pytest.mark.parametrize("mix", [0.0, 1.0])
def test_all_models_of_a_seed_see_the_same_batches_in_the_same_order(mix, monkeypatch):
    read = keras_dskd.ArrayDataset.__getitem__
    orders = []

    def noting(data, index):
        orders[-1].append(index)
        return read(data, index)

    monkeypatch.setattr(keras_dskd.ArrayDataset, "__getitem__", noting)
    x = np.arange(80, dtype="float32")[:, None]
    y = np.eye(2, dtype="float32")[np.arange(80) % 2]
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    options = {"epochs": 2, "batch_size": 8, "learning_rate": 0.1, "mix": mix}
    for layers in (1, 3):  # Each draws random numbers of Keras's.
        orders.append([])
        keras.utils.set_random_seed(3)
        model = keras.Sequential([keras.layers.Dense(2) for _ in range(layers)])
        training.train(model, x, y, seed=5, loss=loss, **options)
    assert orders[0] == orders[1]
    assert orders[0][-10:] == list(range(10))


@pytest.fixture
def tune_weights():
    pytest.importorskip("keras_tuner", reason="the search needs keras-tuner")
    return pytest.importorskip("tune_weights")


def test_weights_are_searched_with_keras_tuner(tune_weights, tmp_path):
    x = np.random.default_rng(0).normal(size=(24, 4)).astype("float32")
    y = np.arange(24) % 3
    tuner = tune_weights.search(
        models.mlp((4,), 3, (3, 3), "teacher"),
        lambda: models.mlp((4,), 3, (3, 3), "student"),
        {"teacher": x, "student": x},
        y,
        x,
        y,
        epochs=1,
        trials=2,
        out=tmp_path,
    )
    best, second = (hp.values for hp in tuner.get_best_hyperparameters(2))
    assert set(best) == {"student_loss", "soft_targets", "independence", "uniformity"}
    assert all(best[weight] != second[weight] for weight in best)
    made = tuner.hypermodel.build(tuner.get_best_hyperparameters()[0])
    weights = [made.student_loss_weight, *made.distillation_loss_weights]
    assert weights == list(best.values())


@pytest.mark.skipif(
    keras.backend.backend() != "torch",
    reason="five models are trained, which are compiled first on other backends",
)
def test_weights_found_are_compared_with_the_usual_ones(
    tune_weights, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(tune_weights, "WIDTHS", (2, 2, 2))
    arguments = ["tune_weights.py", "--trials", "2", "--epochs", "1"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--out", str(tmp_path)])
    tune_weights.main()
    printed = capsys.readouterr().out
    best = re.search(r"^independence: (.*)$", printed, re.MULTILINE)[1]
    assert "Test accuracy with the found weights" in printed
    assert f"{float(best):g} channel_independence" in printed
    assert "0.6 channel_independence" in printed  # 0.3 of the total, as dskd says.


def test_a_training_of_one_step_has_a_learning_rate():
    assert float(training.one_cycle(0.3, 1)(0)) == pytest.approx(0.01)
