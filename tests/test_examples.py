"""The examples, run as a newcomer runs them, at a small size."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
for needed in ("matplotlib", "sklearn"):
    pytest.importorskip(needed, reason=f"the examples need {needed}")
sys.path.insert(0, str(EXAMPLES))
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
    assert (folder / "structure.png").read_bytes().startswith(b"\x89PNG")
    return results


def test_quickstart_gives_a_model_a_table_and_a_picture(tmp_path):
    result = run("quickstart.py", "--seeds", 1, "--epochs", 2, "--out", tmp_path)
    results = check_outputs(tmp_path, result)
    assert (results["train_samples"], results["test_samples"]) == (1000, 797)
    student = keras.saving.load_model(tmp_path / "student.keras")
    assert student.predict(np.zeros((2, 8, 8, 1)), verbose=0).shape == (2, 10)


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


def mixed(**options):
    rng = np.random.default_rng(0)
    strong = rng.random((20, 4, 4, 3), "float32")
    x = {"teacher": strong, "student": 2 * strong[..., :1]}
    y = np.eye(5, dtype="float32")[rng.integers(0, 5, 20)]
    return training.Batches(x, y, seed=3, batch_size=8, mix=1.0, **options)


def test_mixed_rows_remain_pairs_and_carry_the_labels_shares():
    batches = mixed()
    x, y = batches[0]
    np.testing.assert_allclose(x["student"], 2 * x["teacher"][..., :1], rtol=1e-6)
    np.testing.assert_allclose(y.sum(axis=1), 1.0, rtol=1e-6)
    # Two classes at most, in one share for the batch, and some row is mixed.
    shares = np.unique(np.round(y[(y > 0).sum(axis=1) == 2].max(axis=1), 5))
    assert len(shares) == 1
    rows = batches.order[:8]
    assert not np.allclose(x["teacher"], batches.x["teacher"][rows])


def test_mixing_is_of_the_seed_and_anew_in_each_epoch():
    one, other = mixed(), mixed()
    np.testing.assert_array_equal(one[1][0]["student"], other[1][0]["student"])
    first = one[0][1]
    one.on_epoch_end()
    assert not np.allclose(first, one[0][1])


def test_a_training_of_one_step_has_a_learning_rate():
    assert float(training.one_cycle(0.3, 1)(0)) == pytest.approx(0.01)
