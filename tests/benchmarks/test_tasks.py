"""The benchmark of tasks: its data, one short run, and its table."""

import json
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
pytest.importorskip("sklearn", reason="the tasks are made of scikit-learn's digits")
task_list, tasks = map(pytest.importorskip, ("task_list", "tasks"))

pytestmark = pytest.mark.backend_neutral


@pytest.fixture
def small(monkeypatch):
    for name in ("TRAINING_SAMPLES", "TEST_SAMPLES"):
        monkeypatch.setattr(task_list, name, 100)


@pytest.mark.parametrize("name", task_list.TASKS)
def test_both_modalities_have_the_same_shape_and_networks_fit(name, small):
    task = task_list.TASKS[name]
    for strong, weak, y in task_list.samples(task, seed=0):
        assert strong.shape == weak.shape == (100, *strong.shape[1:])
        assert not np.array_equal(strong, weak)
        prediction = task.network(2, "net").predict(weak, verbose=0)
        assert np.isfinite(task.score(y, prediction))


def test_padded_steps_stay_zero(small):
    (strong, weak, _), _ = task_list.samples(task_list.TASKS["recurrent, masked"], 0)
    padded = ~strong.any(axis=2)
    assert padded.any() and not weak[padded].any() and weak[~padded].any(axis=1).all()


def test_scores_by_hand():
    labels, logits = np.array([[1, 0], [0, 0], [1, 1]]), np.array([[1], [1], [-1]])
    # The first label: sensitivity 1/2, specificity 0; the second is the same, 1 - 1/2.
    score = task_list.balanced_accuracy(labels, np.repeat(logits, 2, axis=1))
    assert score == pytest.approx((0.25 + 0.0) / 2)
    y = np.array([[1.0], [3.0]])
    assert task_list.r_squared(y, np.array([2.0, 3.0])) == pytest.approx(0.5)


def test_a_short_run_scores_every_method(small):
    scores = tasks.run(task_list.TASKS["numbers"], 0, steps=2, labeled=20, pairs=60)
    assert set(scores) == {"teacher", *tasks.METHODS}
    assert np.isfinite(list(scores.values())).all()


def test_the_table_shows_differences_to_the_student(capsys):
    lines = [
        {"task": "t", "backend": "b", "scores": dict.fromkeys(tasks.METHODS, 0.5)}
        for _ in range(2)
    ]
    for line, better in zip(lines, (0.52, 0.54), strict=True):
        line["scores"].update(teacher=0.9, dskd=better)
    tasks.table(lines)
    row = capsys.readouterr().out.splitlines()[-1]
    # Mean 3 points, standard deviation 1.414, over the root of 2.
    assert row == "| t | b | 2 | 90.0 | 50.0 | +0.0 ± 0.0 | +3.0 ± 1.0 | +0.0 ± 0.0 |"


def test_the_page_shows_the_table_of_the_results(capsys):
    folder = EXAMPLES / "benchmarks"
    lines = (folder / "results" / "tasks.jsonl").read_text().splitlines()
    tasks.table([json.loads(line) for line in lines])
    page = (folder / "accuracy" / "README.md").read_text()
    assert capsys.readouterr().out in page
