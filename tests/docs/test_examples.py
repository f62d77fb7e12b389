"""The example scripts run at a small size."""

import json
import re
import runpy
import sys
import types
from pathlib import Path

import keras
import numpy as np
import pytest
import snippets

import keras_dskd

pytestmark = pytest.mark.backend_neutral

EXAMPLES = Path(__file__).parents[2] / "examples"
for needed in ("matplotlib", "sklearn"):
    pytest.importorskip(needed, reason=f"the examples need {needed}")
models = pytest.importorskip("models")
training = pytest.importorskip("training")


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a script in this process, and returns what it printed."""

    def run(script, *arguments, steps=snippets.one_step_per_fit):
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        with steps():
            runpy.run_path(str(EXAMPLES / script), run_name="__main__")
        return capsys.readouterr().out

    return run


def check_outputs(folder, printed):
    results = json.loads((folder / "results.json").read_text())
    assert results["backend"] == keras.backend.backend()
    for method in ("student alone", "+ soft targets", "+ dskd", "+ recommended"):
        assert method in printed
        (accuracy,) = results["accuracy"][method]
        assert 0 <= accuracy <= 1
    for figure in ("structure.png", "history.png"):
        assert (folder / figure).read_bytes().startswith(b"\x89PNG")
    assert "+ recommended" in (folder / "structure.html").read_text(encoding="utf-8")
    return results


def test_quickstart_prints_a_table_and_writes_the_student(run, tmp_path):
    pytest.importorskip("seglearn", reason="the quickstart's data come with seglearn")
    printed = run("quickstart.py", "--seeds", 1, "--out", tmp_path)
    scores = json.loads((tmp_path / "results.json").read_text())
    learners = ("student alone", "+ teacher, 2 people", "+ teacher, all people")
    for name in ("teacher, all people", *learners):
        assert re.search(rf"^{re.escape(name)} +\d+\.\d\d", printed, re.MULTILINE)
        assert len(scores[name]) == 1 and 0 <= scores[name][0] <= 1
    student = keras.saving.load_model(tmp_path / "student.keras")
    assert student.predict(np.zeros((2, 100, 3)), verbose=0).shape == (2, 7)


def test_digits_write_a_model_a_table_and_figures(run, tmp_path):
    printed = run("digits.py", "--seeds", 1, "--epochs", 1, "--out", tmp_path)
    results = check_outputs(tmp_path, printed)
    assert (results["train_samples"], results["test_samples"]) == (1000, 797)
    student = keras.saving.load_model(tmp_path / "student.keras")
    assert student.predict(np.zeros((2, 8, 8, 1)), verbose=0).shape == (2, 10)


def test_sphere_animation_is_a_gif_of_each_moment(run, tmp_path):
    image = pytest.importorskip("PIL.Image", reason="figures need Pillow")
    path = tmp_path / "sphere.gif"
    sizes = ("--epochs", 1, "--frames", 3, "--points", 20)
    # One frame an epoch.
    run(
        "sphere_animation.py",
        *sizes,
        "--out",
        path,
        steps=snippets.eager_on_tensorflow,
    )
    with image.open(path) as animation:
        assert animation.format == "GIF"
        assert animation.width == 800
        # The last frame comes first as well. Held at the end, it counts once.
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


def test_optical_to_radar_runs_on_your_file(run, tmp_path):
    data = paired_file(tmp_path / "own.npz")
    out = tmp_path / "out"
    arguments = ("--data", data, "--seeds", 1, "--epochs", 1, "--out", out)
    check_outputs(out, run("optical_to_radar.py", *arguments))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"y_train": None}, r"lacks \['y_train'\]"),
        ({"y_test": np.zeros(3, int)}, "rows do not pair"),
    ],
    ids=["no labels", "unpaired rows"],
)
def test_optical_to_radar_refuses_a_wrong_file(run, tmp_path, changed, message):
    data = paired_file(tmp_path / "own.npz", **changed)
    with pytest.raises(SystemExit, match=message):
        run("optical_to_radar.py", "--data", data)


def test_land_cover_reports_mean_iou_of_a_file(run, tmp_path):
    data = paired_file(tmp_path / "own.npz")
    out = tmp_path / "out"
    arguments = ("--data", data, "--tiles", 64, "--seeds", 1, "--epochs", 1)
    printed = run("land_cover.py", *arguments, "--out", out)
    results = json.loads((out / "results.json").read_text())
    assert (results["train_samples"], results["test_samples"]) == (64, 20)
    for method in ("student alone", "+ soft targets", "+ recommended"):
        assert method in printed
        assert 0 <= results["mean_IoU"][method][0] <= 1
    student = keras.saving.load_model(out / "student.keras")
    assert student.output_shape == (None, 16, 16, 5)


def test_land_cover_labels_some_pixels_of_training_tiles_and_all_of_test_tiles():
    land_cover = pytest.importorskip("land_cover")
    optical, radar, optical_test, radar_test = land_cover.photos()
    assert optical.shape[1:] == (32, 32, 3) and radar.shape == (*optical.shape[:3], 1)
    data = land_cover.labeled(optical[:20], radar[:20], optical_test, radar_test, 8)
    assert np.sum(data.y_train != 255, axis=(1, 2)).tolist() == [8] * 20
    assert set(np.unique(data.y_test)) <= set(range(5))
    assert data.y_test.shape == optical_test.shape[:3]


def test_land_cover_scores_by_mean_iou():
    land_cover = pytest.importorskip("land_cover")

    class Predicting:
        def predict(self, x, verbose):
            return np.eye(5)[x]

    y = np.array([[[0, 0, 1], [2, 3, 4]]])
    predicted = np.array([[[0, 1, 1], [2, 3, 3]]])
    # Intersections over unions: 1/2, 1/2, 1/1, 1/2, 0/1.
    score = land_cover.mean_iou(Predicting(), predicted, y)
    assert score == pytest.approx(2.5 / 5)


@pytest.fixture
def watch(monkeypatch):
    """The example, with two recordings in the place of seglearn's."""
    recordings = [np.arange(6 * n).reshape(n, 6) for n in (220, 149)]
    loaded = {"X": recordings, "y": np.array([3, 5]), "subject": np.array([1, 9])}
    datasets = types.ModuleType("seglearn.datasets")
    datasets.load_watch = lambda: loaded
    monkeypatch.setitem(sys.modules, "seglearn", types.ModuleType("seglearn"))
    monkeypatch.setitem(sys.modules, "seglearn.datasets", datasets)
    monkeypatch.delitem(sys.modules, "quickstart", raising=False)
    return pytest.importorskip("watch")


def test_watch_cuts_windows_of_both_sensors(watch):
    acceleration, rotation, exercises, people = watch.from_seglearn()
    assert exercises.tolist() == [3, 3, 3, 5]  # Starts: 0, 50, 100, and 0.
    assert people.tolist() == [1, 1, 1, 9]
    assert acceleration.shape == rotation.shape == (4, 100, 3)
    assert acceleration[1, 0].tolist() == [300, 301, 302]
    assert rotation[1, 0].tolist() == [303, 304, 305]


def test_watch_leaves_a_person_out_and_keeps_labels_of_some(watch):
    rng = np.random.default_rng(0)
    people = np.repeat([2, 4, 5, 7], 3)
    windows = [rng.normal(3, 2, (12, 10, 3)) for _ in range(2)]
    data = watch.fold(*windows, people % 7, people, number=2, labeled=2)
    assert data.y_test.tolist() == [5] * 3
    # Of the people 2, 4 and 7, the labels of 7 and 2 are known.
    assert data.y_train.tolist() == [2] * 3 + [255] * 3 + [0] * 3
    np.testing.assert_allclose(data.strong_train.mean((0, 1)), np.zeros(6), atol=1e-6)
    np.testing.assert_allclose(data.weak_train.std((0, 1)), np.ones(3), rtol=1e-6)
    np.testing.assert_array_equal(data.strong_test[..., 3:], data.weak_test)
    data = watch.fold(*windows, people % 7, people, number=2, labeled=2, drop=True)
    assert data.y_train.tolist() == [2] * 3 + [0] * 3
    assert len(data.weak_train) == len(data.strong_train) == 6


def test_watch_runs_on_your_file(run, tmp_path):
    rng = np.random.default_rng(0)
    arrays = {}
    for part, people in (("train", np.arange(60) % 3), ("test", np.full(20, 3))):
        for modality in ("strong", "weak"):
            arrays[f"{modality}_{part}"] = rng.normal(size=(len(people), 16, 3))
        arrays[f"y_{part}"] = np.arange(len(people)) % 4
        arrays[f"subject_{part}"] = people
    np.savez(tmp_path / "own.npz", **arrays)
    arguments = ("--data", tmp_path / "own.npz", "--folds", 1, "--epochs", 1)
    check_outputs(tmp_path, run("watch.py", *arguments, "--out", tmp_path))


def test_help_describes_the_file(run, capsys):
    with pytest.raises(SystemExit):
        run("optical_to_radar.py", "--help")
    printed = capsys.readouterr().out
    assert "strong_train" in printed
    assert "uint8" in printed


def test_learning_rate_warms_up_for_a_fifth_of_the_steps_and_decays_to_zero():
    schedule = training.one_cycle(0.3, 100)
    rates = [float(schedule(step)) for step in range(101)]
    assert rates[0] == pytest.approx(0.01)
    assert np.argmax(rates) == 20
    assert rates[20] == pytest.approx(0.3)
    assert rates[60] == pytest.approx(0.15)  # Halfway down.
    assert rates[100] == pytest.approx(0.0, abs=1e-8)


@pytest.mark.parametrize("mix", [0.0, 1.0])
def test_models_with_one_seed_see_the_same_batches_in_the_same_order(mix, monkeypatch):
    read = keras_dskd.ArrayDataset.__getitem__
    orders = []

    def recording(data, index):
        orders[-1].append(index)
        return read(data, index)

    monkeypatch.setattr(keras_dskd.ArrayDataset, "__getitem__", recording)
    x = np.arange(80, dtype="float32")[:, None]
    y = np.eye(2, dtype="float32")[np.arange(80) % 2]
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    options = {"epochs": 2, "batch_size": 8, "learning_rate": 0.1, "mix": mix}
    for layers in (1, 3):  # Each initializer draws from Keras's global generator.
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


def test_keras_tuner_searches_weights(tune_weights, tmp_path):
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


def test_found_weights_are_compared_with_the_default_ones(
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
    # 0.3 of the total is dskd's default.
    assert "0→0.6 channel_independence" in printed


def test_training_of_one_step_has_a_learning_rate():
    assert float(training.one_cycle(0.3, 1)(0)) == pytest.approx(0.01)
