"""Gains over the student alone with few and with all labels, from records made here."""

from pathlib import Path

import pytest

for needed in ("scipy", "matplotlib"):
    pytest.importorskip(needed, reason=f"the benchmarks need {needed}")
label_gains = pytest.importorskip("label_gains")

pytestmark = pytest.mark.backend_neutral
FEW, SAME, ALL = label_gains.BARS
RESULTS = Path(label_gains.__file__).parents[1] / "results"


def runs(gain, labeled=None, teacher_rows="all", seeds=2, data="pairs"):
    """Runs of a student and of a method that is ahead by `gain` on average."""
    about = {
        "data": data,
        "backend": "jax",
        "keras": "3.15.1",
        "split": "test",
        "degrade": None,
        "labeled": labeled,
        "teacher_rows": teacher_rows,
        "weight": None,
    }
    return [
        {**about, "method": method, "seed": seed, "accuracy": accuracy}
        for seed in range(seeds)
        for method, accuracy in (
            ("student", 0.5),
            ("recommended", 0.5 + gain + 0.01 * (seed - (seeds - 1) / 2)),
        )
    ]


def test_bars_tell_teachers_and_numbers_of_labels_apart():
    few = [
        *runs(0.3, labeled=100),
        *runs(0.2, labeled=100, teacher_rows="labeled"),
        *runs(0.4),  # Has all labels.
        *runs(0.4, labeled=50, seeds=1),  # Has too few seeds.
    ]
    found = label_gains.gains(
        [*runs(0.1), *runs(-0.1, data="others")], few, "recommended", 2
    )
    means = {
        data: {bar: round(made.mean, 6) for bar, made in bars.items()}
        for data, bars in found.items()
    }
    assert means == {"pairs": {FEW: 30, SAME: 20, ALL: 10}, "others": {ALL: -10}}
    axes = label_gains.draw(found, "recommended").axes[0]
    assert sorted(round(bar.get_width(), 6) for bar in axes.patches) == [
        -10,
        10,
        20,
        30,
    ]


def test_two_numbers_of_labels_are_refused():
    few = [*runs(0.3, labeled=100), *runs(0.2, labeled=50)]
    with pytest.raises(SystemExit, match="pairs: several groups of runs"):
        label_gains.gains([], few, "recommended", 2)


def test_committed_lines_give_the_numbers_of_the_results(tmp_path, capsys):
    path = tmp_path / "gains.png"
    lines = [RESULTS / f"{name}.jsonl" for name in ("test", "auto_temperature")]
    few = RESULTS / "few_labels.jsonl"
    label_gains.main(["--all", *map(str, lines), "--few", str(few), "--out", str(path)])
    assert path.read_bytes().startswith(b"\x89PNG")
    printed = [line for line in capsys.readouterr().out.splitlines() if "[" in line]
    page = (RESULTS.parent / "RESULTS.md").read_text(encoding="utf-8")
    shown = {
        line.split("|")[1].strip(" `"): [c.strip() for c in line.split("|")[2:-1]]
        for line in page.splitlines()
        if line.startswith("| `") and line.count("|") == 5 and "] |" in line
    }
    assert len(printed) == 7
    for line in printed:
        data, *few_labels, all_labels = [c.strip() for c in line.split("|")[1:-1]]
        assert shown[data] == [all_labels, *few_labels]
