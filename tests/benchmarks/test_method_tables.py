"""Tables and figures of the method comparison, from records made here."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

for needed in ("scipy", "matplotlib"):
    pytest.importorskip(needed, reason=f"the benchmarks need {needed}")
BENCHMARKS = Path(__file__).parents[2] / "examples" / "benchmarks"
comparisons = pytest.importorskip("comparisons")
method_plots = pytest.importorskip("method_plots")
method_tables = pytest.importorskip("method_tables")
records = pytest.importorskip("records")

pytestmark = pytest.mark.backend_neutral

#: Accuracy with each of three seeds.
ACCURACY = {
    "teacher": (0.95, 0.96, 0.97),
    "student": (0.50, 0.60, 0.55),
    "soft_targets": (0.52, 0.61, 0.58),
    "recommended": (0.60, 0.71, 0.64),
}


def record(method, seed, accuracy, **changed):
    layer = {
        "channels": 4,
        "mean_correlation": 0.25,
        "uniformity": -2.0,
        "effective_rank": 3.5,
        "dead_channels": 0,
    }
    return {
        "data": "pairs",
        "checksum": "00000000",
        "degrade": None,
        "split": "test",
        "limit": None,
        "epochs": 3,
        "batch_size": 64,
        "backend": "jax",
        "keras": "3.15.1",
        "method": method,
        "weight": None,
        "seed": seed,
        "accuracy": accuracy,
        "nll": 2 - accuracy,
        "ece": 0.05,
        "structure": {"block2": layer, "features": layer},
        "teacher_accuracy": 0.95,
        "train_samples": 100,
        "scored_samples": 50,
        "seconds": 1.0,
    } | changed


def some(accuracies=ACCURACY, **changed):
    return [
        record(method, seed, accuracy, **changed)
        for method, values in accuracies.items()
        for seed, accuracy in enumerate(values)
    ]


def lower(points):
    """The accuracies, lowered by `points` except for the teacher."""
    return {
        method: tuple(v - points * (method != "teacher") for v in values)
        for method, values in ACCURACY.items()
    }


def written(path, made):
    path.write_text("".join(json.dumps(each) + "\n" for each in made))
    return str(path)


def printed(capsys, *arguments):
    method_tables.main(list(map(str, arguments)))
    return capsys.readouterr().out


def rows(text, method):
    """The cells of each table row that belongs to the method."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith(f"| {method} |")
    ]


def test_differences_are_paired_by_seed(tmp_path, capsys):
    text = printed(capsys, written(tmp_path / "a.jsonl", some()))
    assert "### pairs (jax, Keras 3.15.1): 100 rows to train, 50 test rows" in text
    cells = rows(text, "recommended")[0]
    assert cells[:4] == ["recommended", "3", "65.00", "5.57"]
    # Differences of 10, 11 and 9: standard error 1/√3, t(0.975, 2) = 4.3027.
    assert cells[4] == "+10.00 [+7.52, +12.48]"
    # t = 17.32 with two degrees of freedom: p = 0.00332. Holm multiplies it by 2.
    assert cells[5] == "0.007"
    # Differences of 8, 10 and 6.
    assert cells[6] == "+8.00 [+3.03, +12.97]"
    assert rows(text, "student")[0][4:] == ["", "", "", ""]
    assert rows(text, "teacher")[0][4:] == ["", "", "", ""]
    assert rows(text, "soft_targets")[0][6:] == ["", ""]


def test_order_of_lines_does_not_matter(tmp_path, capsys):
    made = some()
    in_order = printed(capsys, written(tmp_path / "a.jsonl", made))
    made[3:] = made[:2:-1]
    shuffled = printed(capsys, written(tmp_path / "b.jsonl", made))
    assert sorted(in_order.splitlines()) == sorted(shuffled.splitlines())


def test_seeds_without_a_partner_are_left_out_of_differences(tmp_path, capsys):
    made = [r for r in some() if (r["method"], r["seed"]) != ("student", 2)]
    cells = rows(printed(capsys, written(tmp_path / "a.jsonl", made)), "recommended")[0]
    assert cells[1] == "3"
    assert cells[4].startswith("+10.50 [")


def test_one_seed_has_no_interval_and_no_p_value(tmp_path, capsys):
    made = [each for each in some() if each["seed"] == 0]
    cells = rows(printed(capsys, written(tmp_path / "a.jsonl", made)), "recommended")[0]
    assert cells[1:] == ["1", "60.00", "", "+10.00", "", "+8.00", ""]


def test_diagnostics_show_calibration_and_structure(tmp_path, capsys):
    text = printed(capsys, written(tmp_path / "a.jsonl", some()))
    assert "| NLL | ECE, % | block2: correlation |" in text
    diagnostics = rows(text, "recommended")[1]
    assert diagnostics[1:4] == ["65.00", "1.350", "5.00"]
    assert diagnostics[4:7] == ["0.250", "-2.00", "3.5"]


def test_summary_weighs_data_sets_equally_and_counts_wins_ties_and_losses(
    tmp_path, capsys
):
    worse = {**ACCURACY, "recommended": (0.40, 0.49, 0.46)}
    unclear = {**ACCURACY, "recommended": (0.40, 0.80, 0.55)}
    made = some() + some(worse, data="second") + some(unclear, data="third")
    text = printed(capsys, written(tmp_path / "a.jsonl", made))
    assert "### Over 3 data sets (jax, Keras 3.15.1)" in text
    cells = rows(text, "recommended")[-1]
    _, sets, mean, of_seeds, of_sets, p, counts, *_, rank = cells
    assert (sets, mean) == ("3", "56.11")
    # Per seed: -10/3, 20/3 and 0, standard error 2.940, t(0.975, 2) = 4.3027.
    assert of_seeds == "+1.11 [-11.54, +13.76]"
    # Per data set: +10, -10 and 10/3, standard error 5.879.
    assert of_sets == "[-24.19, +26.41]"
    # t = 0.378 with two degrees of freedom. Holm leaves the largest p-value as it is.
    assert p == "0.742"
    assert counts == "1 / 1 / 1"
    # Ranks 1, 3 and 1.
    assert rank == "1.7"


def test_data_sets_without_a_common_seed_have_no_interval_of_the_mean(tmp_path, capsys):
    others = [{**line, "seed": line["seed"] + 3} for line in some(data="second")]
    text = printed(capsys, written(tmp_path / "a.jsonl", some() + others))
    cells = rows(text, "recommended")[-1]
    assert cells[1:4] == ["2", "65.00", ""]
    assert cells[6] == "2 / 0 / 0"


def test_lower_negative_log_likelihood_is_better(tmp_path, capsys):
    made = some() + some(data="second")
    text = printed(capsys, written(tmp_path / "a.jsonl", made), "--metric", "nll")
    assert rows(text, "recommended")[0][4] == "-0.100 [-0.125, -0.075]"
    over_sets = rows(text, "recommended")[-1]
    assert over_sets[6] == "2 / 0 / 0"
    assert over_sets[-1] == "1.0"


def test_degradation_strengths_are_columns_with_a_slope(tmp_path, capsys):
    half = {**lower(0.1), "recommended": (0.55, 0.65, 0.60)}
    made = some(half, degrade="speckle:0.5") + some(degrade="speckle:0")
    text = printed(capsys, written(tmp_path / "a.jsonl", made))
    assert "### pairs, speckle (jax, Keras 3.15.1), difference to student" in text
    assert "| method | 0 | 0.5 | slope [95 %] |" in text
    assert rows(text, "student: accuracy, %")[0][1:3] == ["55.00", "45.00"]
    # Differences of +10, +11 and +9 become +15 for each seed: slopes 10, 8 and 12.
    cells = rows(text, "recommended")[4]
    assert cells[1].startswith("+10.00 [")
    assert cells[2] == "+15.00"
    assert cells[3] == "+10.00 [+5.03, +14.97]"


def test_mixing_validation_and_test_rows_is_refused(tmp_path, capsys):
    files = [
        written(tmp_path / "a.jsonl", some()),
        written(tmp_path / "b.jsonl", some(split="validation")),
    ]
    with pytest.raises(SystemExit, match="test, validation. Choose with --where"):
        method_tables.main(files)
    text = printed(capsys, *files, "--where", "split=test")
    assert "50 test rows" in text
    assert "validation" not in text
    with pytest.raises(SystemExit, match="split is test, validation"):
        method_tables.main([*files, "--where", "split=train"])


def test_each_backend_has_its_own_table(tmp_path, capsys):
    made = some() + some(backend="torch")
    text = printed(capsys, written(tmp_path / "a.jsonl", made))
    assert text.count("### pairs") == 2
    assert "Over" not in text


def test_several_settings_of_one_data_set_have_no_summary(tmp_path, capsys):
    made = some() + some(limit=50) + some(data="second")
    text = printed(capsys, written(tmp_path / "a.jsonl", made))
    assert "no table over data sets. With several settings: pairs" in text


def test_holm_counts_only_the_methods_shown(tmp_path, capsys):
    made = some({**ACCURACY, "fitnet": (0.6, 0.6, 0.6)})
    path = written(tmp_path / "a.jsonl", made)
    cells = rows(printed(capsys, path, "--methods", "recommended"), "recommended")[0]
    assert cells[5] == "0.007"
    # For three methods: 3 times 0.00332.
    assert rows(printed(capsys, path), "recommended")[0][5] == "0.010"
    with pytest.raises(SystemExit, match="Not run: fitnett. Run were: fitnet, recomm"):
        method_tables.main([path, "--methods", "fitnett"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 13: not a record"),
        ('{"method": "student"}', r"line 13: the record lacks \['accuracy'"),
        (json.dumps(some()[0]), "line 13: this run is in .*line 1 too"),
        (json.dumps(some()[3] | {"weight": 2.0}), "with another. Keep one"),
    ],
)
def test_invalid_or_repeated_lines_are_refused(tmp_path, line, message):
    path = Path(written(tmp_path / "a.jsonl", some()))
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(SystemExit, match=message):
        method_tables.main([str(path)])


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="cannot be read"):
        method_tables.main([str(tmp_path / "none.jsonl")])


def test_records_survive_writing_and_reading(tmp_path):
    path = tmp_path / "runs.jsonl"
    kept = records.Records(path)
    for each in some():
        assert each not in kept
        kept.add(each)
        assert each in kept
    assert records.read([path]) == some()
    assert some()[0] in records.Records(path)
    assert record("student", 9, 0.5) not in records.Records(path)
    with pytest.raises(ValueError, match="JSON"):
        kept.add(record("student", 9, float("nan")))


def test_figures_are_written(tmp_path, capsys):
    made = some() + some(data="second")
    for strength, points in (("0", 0), ("0.5", 0.1), ("1", 0.3)):
        made += some(lower(points), degrade=f"speckle:{strength}")
    text = printed(
        capsys, written(tmp_path / "a.jsonl", made), "--plots", tmp_path / "figures"
    )
    for name in ("intervals.png", "gap.png"):
        figure = tmp_path / "figures" / name
        assert figure.read_bytes().startswith(b"\x89PNG")
        assert str(figure) in text


def test_figure_shows_the_intervals_of_the_table():
    made = comparisons.groups(some() + some(data="second"))
    metric = comparisons.METRICS["accuracy"]
    figure = method_plots.intervals(made, metric)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["pairs", "second", "mean over data sets"]
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == [
        "soft_targets",
        "recommended",
    ]
    to_student = axes.containers[0]
    assert list(to_student.lines[0].get_xdata()) == pytest.approx([2, 10])
    (arms,) = to_student.lines[2]
    np.testing.assert_allclose(
        [segment[:, 0] for segment in arms.get_segments()][1], [7.52, 12.48], atol=0.01
    )


def at_epochs(**more):
    """Runs where `recommended` is best at 6 epochs, and the others at 3."""
    found = some(split="validation", **more)
    of_six = lower(0.1)
    of_six["recommended"] = (0.9, 0.9, 0.9)
    return found + some(of_six, split="validation", epochs=6, **more)


def test_table_of_epochs_marks_the_best_of_each_method(tmp_path, capsys):
    text = printed(capsys, written(tmp_path / "a.jsonl", at_epochs()[::-1]))
    shown = text[text.index("### pairs, all rows (jax, Keras 3.15.1), accuracy, %") :]
    assert "| method | 3 | 6 |" in shown
    assert rows(shown, "teacher") == [["teacher", "96.00", "96.00"]]
    assert rows(shown, "student") == [["student", "**55.00**", "45.00"]]
    assert rows(shown, "recommended") == [["recommended", "65.00", "**90.00**"]]
    # For the negative log-likelihood, the lowest is the best.
    text = printed(capsys, tmp_path / "a.jsonl", "--metric", "nll")
    shown = text[text.index("NLL by epochs") :]
    assert rows(shown, "student") == [["student", "**1.450**", "1.550"]]


def test_missing_epochs_leave_an_empty_cell(tmp_path, capsys):
    made = [r for r in at_epochs() if (r["method"], r["epochs"]) != ("student", 3)]
    text = printed(capsys, written(tmp_path / "a.jsonl", made))
    assert ["student", "", "**45.00**"] in rows(text, "student")


def test_best_epochs_compares_each_method_at_its_best_epochs(tmp_path, capsys):
    tests = [
        *some(epochs=6),
        *some(lower(0.2)),
    ]
    files = [
        written(tmp_path / "validation.jsonl", at_epochs()),
        written(tmp_path / "test.jsonl", tests),
    ]
    text = printed(capsys, *files, "--best-epochs")
    assert (
        "100 rows to train, 50 test rows, epochs by validation (student 3, "
        "soft_targets 3, recommended 6), batches of 64"
    ) in text
    assert rows(text, "teacher")[0][:3] == ["teacher", "3", "96.00"]
    assert rows(text, "student")[0][:3] == ["student", "3", "35.00"]
    assert rows(text, "recommended")[0][:3] == ["recommended", "3", "65.00"]
    # Differences of 30, 31 and 29.
    assert rows(text, "recommended")[0][4] == "+30.00 [+27.52, +32.48]"


def test_chosen_method_is_a_row_with_its_choices(tmp_path, capsys):
    validation = some(lower(0.1), split="validation", epochs=6)
    files = [
        written(tmp_path / "validation.jsonl", validation),
        written(tmp_path / "test.jsonl", some()),
    ]
    text = printed(capsys, *files, "--choose", "student", "recommended")
    assert rows(text, "chosen")[0] == rows(text, "recommended")[0][:0] + [
        "chosen",
        *rows(text, "recommended")[0][1:],
    ]
    assert "chosen: recommended 3" in text


def test_figure_of_epochs_has_a_panel_per_data_set(tmp_path, capsys):
    made = [*at_epochs(), *at_epochs(data="others", limit=90)]
    printed(capsys, written(tmp_path / "a.jsonl", made), "--plots", tmp_path)
    assert (tmp_path / "epochs.png").read_bytes().startswith(b"\x89PNG")
    of_epochs = method_tables.curves(comparisons.groups(made))
    figure = method_plots.by_epochs(of_epochs, comparisons.METRICS["accuracy"])
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["pairs, all rows", "others, 90 rows"]
    line = figure.axes[0].containers[-1]
    assert line.get_label() == "recommended"
    assert list(line.lines[0].get_ydata()) == pytest.approx([65, 90])
    # Standard errors: 5.568 / √3 for 60, 71 and 64, and 0 for three times 90.
    (arms,) = line.lines[2]
    lengths = [np.ptp(segment[:, 1]) / 2 for segment in arms.get_segments()]
    np.testing.assert_allclose(lengths, [3.2146, 0], atol=1e-4)


SUMMARY = BENCHMARKS / "RESULTS.md"
TABLES = sorted((BENCHMARKS / "tables").glob("*.md"))
SCRIPT = "examples/benchmarks/accuracy/method_tables.py"
COMMAND = re.compile(rf"python {re.escape(SCRIPT)} (?=examples/)")
PARTS = [
    pytest.param(part, id=f"{path.stem}: {part[28:58]}")
    for path in (SUMMARY, *TABLES)
    for part in COMMAND.split(path.read_text(encoding="utf-8"))[1:]
]


@pytest.mark.parametrize("part", PARTS)
def test_results_page_shows_what_its_commands_print(part, capsys):
    command, *shown = part.splitlines()
    root = BENCHMARKS.parents[1]
    method_tables.main(
        [
            str(root / word) if word.startswith("examples/") else word
            for word in command.split()
        ]
    )
    rows = set(capsys.readouterr().out.splitlines())
    shown = [line for line in shown if line.startswith(("| soft_targets", "| recomm"))]
    assert shown
    assert rows.issuperset(shown)


def test_every_page_of_tables_shows_what_a_command_prints():
    assert TABLES
    for path in TABLES:
        assert COMMAND.search(path.read_text(encoding="utf-8")), path.name


def words(path):
    return " ".join(path.read_text(encoding="utf-8").replace("+", "").split())


def test_summary_has_only_numbers_of_the_tables():
    summary = words(SUMMARY).split("## Sets")[0]
    pages = (*TABLES, BENCHMARKS / "accuracy" / "README.md")
    known = "\n".join(map(words, pages))
    differences = re.findall(r"-?\d+\.\d+ \[[^]]+\]", summary)
    assert len(differences) > 30
    # Words of digits, but no number of arXiv.
    numbers = re.findall(r"(?<![\d.])\d+\.\d{1,3}(?!\d)", summary)
    for shown in (*differences, *numbers):
        assert re.search(rf"(?<![\d.]){re.escape(shown)}(?!\d)", known), shown


def test_results_page_uses_every_file_of_results():
    shown = "".join(path.read_text(encoding="utf-8") for path in TABLES)
    for path in (BENCHMARKS / "results").glob("*.jsonl"):
        # These have their own pages: see test_compatibility.py and test_tasks.py.
        if path.stem in ("compatibility", "tasks"):
            continue
        assert f"results/{path.name}" in shown
