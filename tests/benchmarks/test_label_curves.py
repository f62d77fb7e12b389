"""Accuracy against the number of labels, from records made here."""

from pathlib import Path

import numpy as np
import pytest

for needed in ("scipy", "matplotlib"):
    pytest.importorskip(needed, reason=f"the benchmarks need {needed}")
label_curves = pytest.importorskip("label_curves")

pytestmark = pytest.mark.backend_neutral


def record(method, accuracy, seed=0, labeled=None, teacher_rows="all", **changed):
    return {
        "data": "pairs",
        "backend": "jax",
        "split": "test",
        "method": method,
        "seed": seed,
        "accuracy": accuracy,
        "labeled": labeled,
        "teacher_rows": teacher_rows,
        **changed,
    }


RECORDS = [
    record("student", 0.5, labeled=100),
    record("student", 0.6, labeled=100, seed=1),
    record("student", 0.5, labeled=100, teacher_rows="labeled"),
    record("student", 0.75),
    record("recommended", 0.7, labeled=100),
    record("recommended", 0.65, labeled=100, teacher_rows="labeled"),
    record("recommended", 0.8),
    record("recommended", 0.1, labeled=100, pairs=200),
    record("soft_targets", 0.2, labeled=100),
    record("teacher", 0.9),
]


def test_curves_tell_teachers_and_numbers_of_labels_apart():
    (found,) = label_curves.curves(RECORDS, "recommended").values()
    assert {key: list(curve) for key, curve in found.items()} == {
        None: [100, label_curves.ALL],
        "all": [100, label_curves.ALL],
        "labeled": [100, label_curves.ALL],
    }
    np.testing.assert_allclose(found[None][100], [50, 60])
    np.testing.assert_allclose(found["all"][100], [70])
    np.testing.assert_allclose(found["labeled"][100], [65])
    # With all labels, both teachers are the same.
    for teacher in ("all", "labeled"):
        np.testing.assert_allclose(found[teacher][label_curves.ALL], [80])


def test_table_has_means_and_numbers_of_seeds():
    (found,) = label_curves.curves(RECORDS, "recommended").values()
    header, rows = label_curves.rows_of(found)
    assert header == ["labels", "100", "all"]
    assert [row[1:] for row in rows] == [
        ["55.0 (2)", "75.0 (1)"],
        ["70.0 (1)", "80.0 (1)"],
        ["65.0 (1)", "80.0 (1)"],
    ]


def test_backends_and_data_sets_have_curves_of_their_own():
    others = [
        record("student", 0.4, backend="torch"),
        record("student", 0.3, data="others", labeled_scenes=2),
    ]
    found = label_curves.curves([*RECORDS, *others], "recommended")
    assert list(found) == ["pairs (jax)", "pairs (torch)", "others (jax)"]
    assert list(found["others (jax)"][None]) == [2]
    figure = label_curves.draw(found, "labels")
    assert len(figure.axes) == 3
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["100", "all"]


def test_committed_lines_draw_a_figure(tmp_path, capsys):
    lines = Path(label_curves.__file__).parents[1] / "results" / "few_labels.jsonl"
    path = tmp_path / "labels.png"
    given = [str(lines), "--where", "data=watch_acc_gyro", "--out", str(path)]
    label_curves.main(given)
    assert path.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    for words in label_curves.TEACHERS.values():
        assert f"| {words} | " in printed


def test_runs_of_several_settings_are_refused():
    made = [*RECORDS, record("student", 0.5, labeled=50, limit=1000)]
    with pytest.raises(SystemExit, match=r"pairs \(jax\): runs of several settings"):
        label_curves.curves(made, "recommended")
