"""The method comparison at a tiny size: runs, resuming, and clear errors."""

import contextlib
import io
import json
import os
import sys

import keras
import numpy as np
import pytest

import keras_dskd

for needed in ("scipy", "sklearn"):
    pytest.importorskip(needed, reason=f"the benchmarks need {needed}")
comparisons = pytest.importorskip("comparisons")
measuring = pytest.importorskip("measuring")
methods = pytest.importorskip("methods")
method_list = pytest.importorskip("method_list")
models = pytest.importorskip("models")
records = pytest.importorskip("records")
runs = pytest.importorskip("runs")

#: test_methods_on_backends.py runs a job on each backend.
pytestmark = pytest.mark.backend_neutral

# Tabular data and two of the cheapest methods.
NAMES = ("label_smoothing", "reused_classifier")
JOB = ("--data", "breast_cancer", "--limit", "100", "--seeds", "2")
JOB += ("--epochs", "1", "--teacher-epochs", "1")
JOB += ("--teacher-widths", "8", "8", "8", "--student-widths", "4", "4", "4")
JOB += ("--methods", *NAMES)


def arguments(out, *given):
    return [*map(str, given), "--out", str(out)]


def lines(out):
    return (out / "runs.jsonl").read_bytes().splitlines(keepends=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished job, and what the job printed."""
    out = tmp_path_factory.mktemp("methods")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        methods.main(arguments(out, *JOB))
    return out, printed.getvalue()


@pytest.mark.parametrize("backend", [None, "theano"])
def test_script_restarts_with_another_backend(backend, monkeypatch):
    started = []
    monkeypatch.setenv("KERAS_BACKEND", keras.backend.backend())
    monkeypatch.setattr(os, "execv", lambda *arguments: started.append(arguments))
    monkeypatch.setattr(sys, "argv", ["methods.py", "--backend", "theano"])
    measuring.move_to(keras.backend.backend())
    measuring.move_to(backend)
    if backend is None:
        assert not started
    else:
        assert os.environ["KERAS_BACKEND"] == backend
        assert started == [(sys.executable, [sys.executable, *sys.argv])]


def test_each_run_is_recorded_with_settings_and_results(finished):
    out, _ = finished
    records = [json.loads(line) for line in lines(out)]
    runs = [(record["seed"], record["method"]) for record in records]
    assert runs == [(seed, name) for seed in (0, 1) for name in ("teacher", *NAMES)]
    for record in records:
        assert record["data"] == "breast_cancer"
        assert record["split"] == "validation"
        assert record["backend"] == keras.backend.backend()
        assert record["keras"] == keras.__version__
        assert record["epochs"] == 1
        assert record["student_widths"] == [4, 4, 4]
        assert (record["train_samples"], record["scored_samples"]) == (100, 80)
        assert 0 <= record["accuracy"] <= 1
        assert 0 <= record["ece"] <= 1
        assert record["nll"] > 0
        assert set(record["structure"]) == {"block2", "features"}
        assert record["structure"]["features"]["effective_rank"] >= 1
    accuracies = [record["teacher_accuracy"] for record in records[:3]]
    assert accuracies == [records[0]["accuracy"]] * 3
    assert len({record["nll"] for record in records}) == 6


def test_progress_shows_the_run_and_the_remaining_time(finished):
    _, printed = finished
    assert "[1/6] breast_cancer, seed 0, teacher" in printed
    assert "[6/6] breast_cancer, seed 1, reused_classifier, about" in printed
    assert "s left" in printed


def test_finished_job_trains_nothing(finished, capsys):
    out, _ = finished
    before = lines(out)
    methods.main(arguments(out, *JOB))
    assert lines(out) == before
    assert "0 trainings" in capsys.readouterr().out


def test_killed_job_repeats_only_the_unfinished_run(finished, capsys):
    out, _ = finished
    before = lines(out)
    teachers = {path: path.stat().st_mtime_ns for path in (out / "teachers").iterdir()}
    half = len(before[-1]) // 2
    (out / "runs.jsonl").write_bytes(b"".join(before)[:-half])
    methods.main(arguments(out, *JOB))
    printed = capsys.readouterr().out
    assert "the last line is incomplete, and is dropped" in printed
    assert "[1/1] breast_cancer, seed 1, reused_classifier" in printed
    after = lines(out)
    assert after[:-1] == before[:-1]
    repeated, first = json.loads(after[-1]), json.loads(before[-1])
    assert len(after) == len(before)
    assert first in methods.Records(out / "runs.jsonl")
    # Weights, teacher and batches are the same. The order of sums may differ.
    assert repeated["nll"] == pytest.approx(first["nll"], rel=1e-3)
    assert teachers == {
        path: path.stat().st_mtime_ns for path in (out / "teachers").iterdir()
    }


def test_changed_setting_or_seed_is_a_new_run(finished):
    out, _ = finished
    records = methods.Records(out / "runs.jsonl")
    for change in (
        ("--limit", "90"),
        ("--on", "test"),
        ("--learning-rate", "0.001"),
        ("--epochs", "2"),
        ("--teacher-epochs", "2"),
        ("--data", "digits"),
        ("--data", "digits", "--degrade", "speckle:0.5"),
        ("--seeds", "2-3"),
    ):
        given = methods.parse([*JOB, *change])
        missing = methods.plan(given, records)
        assert [names for *_, names in missing] == [["teacher", *NAMES]] * 2


def test_runs_that_differ_in_epochs_share_a_teacher(tmp_path):
    given = methods.parse([*JOB, "--epochs", "1", "3", "--teacher-epochs", "2"])
    missing = methods.plan(given, methods.Records(tmp_path / "runs.jsonl"))
    assert [(seed, settings.epochs) for *_, seed, settings, _ in missing] == [
        (0, 1),
        (0, 3),
        (1, 1),
        (1, 3),
    ]
    table = methods.data_sets.load("breast_cancer")
    some = [
        runs.SeedRuns(table, 0, settings, tmp_path)
        for *_, settings, _ in [missing[0], missing[1]]
    ]
    assert some[0]._teacher_path() == some[1]._teacher_path()
    given = methods.parse([*JOB, "--epochs", "1", "--teacher-epochs", "3"])
    other = runs.SeedRuns(table, 0, methods.settings_of(given, 1), tmp_path)
    assert other._teacher_path() != some[0]._teacher_path()


def test_teacher_and_student_have_their_own_epochs(monkeypatch, tmp_path):
    given = methods.parse([*JOB, "--teacher-epochs", "2"])
    table = methods.data_sets.load("breast_cancer")
    of_seed = runs.SeedRuns(table, 0, methods.settings_of(given, 3), tmp_path)
    seen = []
    monkeypatch.setattr(runs, "train", lambda *_, steps, **__: seen.append(steps))
    monkeypatch.setattr(runs.SeedRuns, "_scores", lambda *_: {"accuracy": 0.0})
    of_seed.run("soft_targets", method_list.METHODS["soft_targets"])
    assert seen == [2, 3]


def test_students_see_the_rows_of_their_protocol(monkeypatch, tmp_path):
    given = methods.parse([*JOB, "--labeled", "20", "--teacher-rows", "labeled"])
    table = methods.data_sets.load("breast_cancer")
    of_seed = runs.SeedRuns(table, 0, methods.settings_of(given, 3), tmp_path)
    seen = []
    monkeypatch.setattr(
        runs, "train", lambda _, x, y, **options: seen.append((x, y, options["steps"]))
    )
    monkeypatch.setattr(runs.SeedRuns, "_scores", lambda *_: {"accuracy": 0.0})
    names = ("student", "soft_targets", "soft_targets_on_labeled", "teacher_only")
    for name in names:
        of_seed.run(name, method_list.METHODS[name])
    teacher, student, on_pairs, on_labeled, teacher_only = seen
    labeled = of_seed.labeled
    assert labeled.sum() == 20
    np.testing.assert_array_equal(teacher[0], of_seed.data.strong_train[labeled])
    np.testing.assert_array_equal(student[0], of_seed.data.weak_train[labeled])
    for made in (on_pairs, teacher_only):
        np.testing.assert_array_equal(made[0]["student"], of_seed.data.weak_train)
        np.testing.assert_array_equal(made[0]["label_mask"], labeled)
    assert len(on_labeled[0]["student"]) == 20 and "label_mask" not in on_labeled[0]
    assert [made[2] for made in seen] == [1, 3, 3, 3, 3]  # Steps.


@pytest.mark.parametrize("name", ["soft_targets_t2", "recommended_t2"])
def test_methods_of_other_temperatures_have_them(name):
    teacher, student = (
        models.mlp((4,), 3, (4, 4, 4), role) for role in ("teacher", "student")
    )
    made = method_list.METHODS[name].make(teacher, student, 10)
    made.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert made.loss_terms[0].loss.temperature == 2.0


def test_few_labels_are_recorded(tmp_path, capsys):
    job = [*JOB[: JOB.index("--methods")], "--methods", "student", "recommended_t1"]
    methods.main(arguments(tmp_path, *job, "--labeled", "0.2", "--seeds", "1"))
    made = [json.loads(line) for line in lines(tmp_path)]
    assert [record["method"] for record in made] == [
        "teacher",
        "student",
        "recommended_t1",
    ]
    assert {record["labeled"] for record in made} == {0.2}
    (group,) = comparisons.groups(made)
    assert group.trained_on == "breast_cancer, 100 rows, 20% labeled"


def seen_by(names, monkeypatch, *changed):
    """The runs of a seed, and what `train` was given in each: `(x, y, options)`."""
    table, seen = methods.data_sets.load("breast_cancer"), []
    given = methods.parse([*JOB, "--labeled", "20", *changed])
    of_seed = runs.SeedRuns(table, 0, methods.settings_of(given), "unused")
    of_seed.teacher = of_seed._network("teacher", 0)
    monkeypatch.setattr(
        runs, "train", lambda model, x, y, **options: seen.append((x, y, options))
    )
    monkeypatch.setattr(runs.SeedRuns, "_scores", lambda *_: {"accuracy": 0.0})
    for name in names:
        of_seed.run(name, method_list.METHODS[name])
    return of_seed, seen


def test_pairs_option_keeps_the_labeled_rows(monkeypatch):
    names = ("student", "soft_targets", "soft_targets_on_labeled")
    of_seed, seen = seen_by(names, monkeypatch, "--pairs", "50")
    student, on_pairs, on_labeled = seen
    assert len(student[0]) == len(on_labeled[0]["student"]) == 20
    x, y, _ = on_pairs
    assert len(y) == len(x["student"]) == 50
    assert x["label_mask"].sum() == 20
    np.testing.assert_array_equal(x["student"][x["label_mask"]], student[0])
    np.testing.assert_array_equal(y[x["label_mask"]], student[1])
    with pytest.raises(SystemExit, match="100 pairs to train on, and 20 of them have"):
        seen_by(["soft_targets"], monkeypatch, "--pairs", "10")


def test_methods_to_choose_from_differ_as_their_names_say(monkeypatch):
    names = ("soft_targets", "labeled_share_0.5", "soft_targets_averaged")
    _, seen = seen_by(names, monkeypatch)
    plain, share, averaged = (options for *_, options in seen)
    assert (plain["labeled_share"], plain["average"], plain["moves"]) == (
        0.25,
        False,
        None,
    )
    assert plain | {"labeled_share": 0.5} == share
    assert plain | {"average": True} == averaged


def test_unsure_teacher_is_masked_on_unlabeled_rows(monkeypatch):
    of_seed, ((x, *_),) = seen_by(["confident_0.95"], monkeypatch)
    logits = of_seed.teacher.predict(of_seed.data.strong_train, verbose=0)
    exponentials = np.exp(logits)
    surest = (exponentials / exponentials.sum(axis=1, keepdims=True)).max(axis=1)
    expected = x["label_mask"] | (surest >= 0.95)
    np.testing.assert_array_equal(x["teacher_mask"], expected)
    assert not expected.all()


def test_best_epochs_option_sets_the_epochs_per_method(tmp_path, capsys):
    chosen = tmp_path / "chosen.jsonl"
    shared = dict.fromkeys(records.RESULTS, 0.0)
    shared |= {"data": "breast_cancer", "degrade": None, "limit": 100, "seed": 0}
    shared |= {"split": "validation", "mix": 0.0, "network": "mlp"}
    accuracies = {
        ("label_smoothing", 5): 0.6,
        ("label_smoothing", 10): 0.5,
        ("reused_classifier", 5): 0.6,
        ("reused_classifier", 10): 0.7,
    }
    lines = [
        shared | {"method": method, "epochs": epochs, "accuracy": accuracy}
        for (method, epochs), accuracy in accuracies.items()
    ]
    chosen.write_text("".join(json.dumps(line) + "\n" for line in lines))
    at = JOB.index("--epochs")
    job = [*JOB[:at], *JOB[at + 2 :], "--on", "test", "--best-epochs", str(chosen)]
    missing = methods.plan(methods.parse(job), methods.Records(tmp_path / "runs.jsonl"))
    found = [(seed, settings.epochs, names) for *_, seed, settings, names in missing]
    assert found == [
        (seed, epochs, ["teacher", name])
        for seed in (0, 1)
        for epochs, name in ((5, "label_smoothing"), (10, "reused_classifier"))
    ]
    with pytest.raises(SystemExit):
        methods.parse([*job, "--epochs", "7"])
    assert "--epochs: not allowed with argument --best-epochs" in (
        capsys.readouterr().err
    )
    job += ["--methods", "student", "label_smoothing"]
    with pytest.raises(SystemExit, match="no line of breast_cancer .* for student"):
        methods.plan(methods.parse(job), methods.Records(tmp_path / "runs.jsonl"))


def test_methods_with_one_seed_share_weights_rows_and_options(monkeypatch, tmp_path):
    given = methods.parse([*JOB, "--out", str(tmp_path)])
    table = methods.data_sets.load("breast_cancer")
    of_seed = runs.SeedRuns(table, 0, methods.settings_of(given), tmp_path)
    seen = {}

    def see(model, x, y, **options):
        student = getattr(model, "student", model)
        seen[name] = (student.get_weights(), x, y, options)

    monkeypatch.setattr(runs, "train", see)
    # Nothing is trained, so scores would mean nothing.
    monkeypatch.setattr(runs.SeedRuns, "_scores", lambda *_: {"accuracy": 0.0})
    names = ("teacher", "student", "soft_targets", "soft_targets_shuffled", "in_class")
    for name in names:
        if name == "teacher":
            of_seed.run_teacher()
        elif name == "in_class":
            method = method_list.Method(
                method_list.compare.soft_targets, "", pairs="class"
            )
            of_seed.run(name, method)
        else:
            of_seed.run(name, method_list.METHODS[name])
    weights, x, y, options = seen["student"]
    np.testing.assert_array_equal(x, of_seed.data.weak_train)
    logits = {}
    for name in names[2:]:
        for ours, theirs in zip(seen[name][0], weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(seen[name][1]["student"], x)
        np.testing.assert_array_equal(seen[name][2], y)
        assert seen[name][3] == options
        (logits[name],) = seen[name][1]["teacher_features"].values()
    expected = of_seed.teacher.predict(of_seed.data.strong_train, verbose=0)

    def is_close(rows, others):
        return np.allclose(rows, others, rtol=1e-4, atol=1e-5)

    def are_the_same_rows(name, label):
        found = [np.sort(rows[y == label], axis=0) for rows in (logits[name], expected)]
        return is_close(*found)

    assert is_close(logits["soft_targets"], expected)
    for name in ("soft_targets_shuffled", "in_class"):
        assert not is_close(logits[name], expected)
        assert is_close(*(np.sort(rows, axis=0) for rows in (logits[name], expected)))
    assert all(are_the_same_rows("in_class", label) for label in (0, 1))
    assert not any(
        are_the_same_rows("soft_targets_shuffled", label) for label in (0, 1)
    )


def test_every_method_makes_a_model():
    teacher = models.mlp((3,), 3, (8, 8, 6), "teacher")
    found = method_list.chosen(method_list.GROUPS, axes=0)
    left_out = {
        "attention_transfer",
        "attention_transfer_alone",
        "fading_attention",
        "positions",
        "student_augmented",
        "soft_targets_augmented",
        "recommended_augmented",
    }
    assert set(found) == set(method_list.METHODS) - left_out
    for name, method in found.items():
        student = models.mlp((2,), 3, (4, 4, 4), "student")
        made = method.make(teacher, student, 10)
        if method.label_smoothing or name in ("student", "student_averaged"):
            assert made is student
        else:
            assert isinstance(made, keras_dskd.Distiller)


def test_methods_of_images_are_refused_for_sequences():
    assert "attention_transfer" in method_list.chosen(["baselines"], axes=1)
    with pytest.raises(SystemExit, match="student_augmented needs images"):
        method_list.chosen(["student_augmented"], axes=1)


@pytest.mark.parametrize("name", ["attention_transfer", "similarity_preserving"])
def test_feature_map_methods_read_the_blocks(name):
    teacher = models.cnn((16, 16, 3), 3, (8, 8, 6), "teacher")
    student = models.cnn((16, 16, 1), 3, (4, 4, 4), "student")
    (method,) = method_list.chosen([name], axes=2).values()
    losses = method.make(teacher, student, 10).distillation_losses
    read = [(loss.teacher_layer_name, loss.student_layer_name) for loss in losses[1:]]
    blocks = ["block2", "block3"] if name == "attention_transfer" else ["block3"]
    assert read == [(block, block) for block in blocks]


def test_fading_attention_decays_to_zero():
    teacher = models.cnn((16, 16, 3), 3, (8, 8, 6), "teacher")
    student = models.cnn((16, 16, 1), 3, (4, 4, 4), "student")
    name = "fading_attention@30"
    (method,) = method_list.chosen([name], axes=2).values()
    made = method.make(teacher, student, 10)
    read = [
        (type(loss).__name__, loss.teacher_layer_name)
        for loss in made.distillation_losses
    ]
    weights = made.distillation_loss_weights
    assert read[3:] == [
        ("AttentionTransfer", "block2"),
        ("AttentionTransfer", "block3"),
    ]
    for weight in weights[3:]:  # Doubled, because labels are half of the total.
        assert [float(weight(step)) for step in (0, 5, 10)] == [60.0, 30.0, 0.0]
    assert list(weights[:3]) == [1.0, 8.0, 8.0]


def test_weight_of_a_method_is_a_share_of_the_total():
    teacher = models.mlp((3,), 2, (8, 8, 8), "teacher")
    student = models.mlp((2,), 2, (4, 4, 4), "student")
    (method,) = method_list.chosen(["cka@0.2"], False).values()
    assert method.weight == 0.2
    distiller = method.make(teacher, student, 10)
    shares = (1 - distiller.student_loss_weight) * np.array(
        distiller.distillation_loss_weights
    )
    np.testing.assert_allclose(shares, [0.5, 0.2])


def test_reused_classifier_has_frozen_teacher_weights():
    teacher = models.mlp((3,), 2, (8, 8, 8), "teacher")
    student = models.mlp((2,), 2, (4, 4, 4), "student")
    (method,) = method_list.chosen(["reused_classifier"], False).values()
    reused = method.make(teacher, student, 10).student.get_layer("reused")
    assert reused.trainable_variables == []
    for ours, theirs in zip(
        reused.get_weights(), teacher.get_layer("logits").get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--methods", "dksd"), "no method 'dksd'.*recommended"),
        (("--methods", "recommended@2"), "recommended has no weight"),
        (("--methods", "fitnet@much"), "write a number"),
        (("--data", "digit"), "takes digits, breast_cancer or an .npz.*digit"),
        (("--data", "none.npz"), "no file none.npz"),
        (("--degrade", "fog:0.5"), "no degradation 'fog'"),
        (("--degrade", "speckle"), "Write name:strength"),
        (("--degrade", "speckle:2"), "between 0 and 1"),
        (("--limit", "801"), "digits has 800 rows"),
        (("--limit", "30"), "less than a batch of 64"),
        (("--labeled", "801"), "digits has 800 rows"),
        (("--pairs", "700"), "800 pairs to train on, and 800 of them have labels"),
        (("--labeled", "20", "--pairs", "10"), "and 20 of them have labels"),
        (("--student-widths", "4", "4"), "equally many widths"),
    ],
)
def test_invalid_arguments_are_refused_before_training(tmp_path, given, message):
    with pytest.raises(SystemExit, match=message):
        methods.main(arguments(tmp_path, "--data", "digits", *given))
    assert not (tmp_path / "runs.jsonl").exists()


def test_feature_map_method_on_a_table_is_refused(tmp_path):
    given = ("--data", "breast_cancer", "--methods", "attention_transfer")
    with pytest.raises(
        SystemExit, match="attention_transfer needs sequences or images"
    ):
        methods.main(arguments(tmp_path, *given))


@pytest.mark.parametrize("seeds", ["none", "0", "5-3"])
def test_invalid_seeds_are_refused(seeds, capsys):
    with pytest.raises(SystemExit):
        methods.parse(["--data", "digits", "--seeds", seeds])
    assert "--seeds" in capsys.readouterr().err


def test_resnet_is_resnet18_for_small_images():
    network = models.resnet((32, 32, 3), 10, (64, 128, 256, 512), "student")
    # ResNet-18 with a 3x3 stem has 11.17 million weights. Counted by hand:
    # convolutions 11,159,232, batch normalization 9,600, classifier 5,130.
    assert sum(np.prod(w.shape) for w in network.trainable_weights) == 11_173_962
    shapes = [network.get_layer(f"block{n}").output.shape[1:] for n in (1, 2, 3, 4)]
    assert shapes == [(32, 32, 64), (16, 16, 128), (8, 8, 256), (4, 4, 512)]
    assert network.get_layer("features").output.shape == (None, 512)


def test_network_option_chooses_the_image_network():
    data_set = runs.data_sets.load("digits")
    settings = runs_settings("--network", "resnet", "--student-widths", "2", "4", "4")
    of_seed = runs.SeedRuns(data_set, 0, settings)
    assert of_seed.identity("student")["network"] == "resnet"
    student = of_seed._network("student", 0)
    assert any(isinstance(layer, keras.layers.Add) for layer in student.layers)
    table = runs.SeedRuns(runs.data_sets.load("breast_cancer"), 0, settings)
    assert table.identity("student")["network"] == "mlp"


def test_negative_mix_is_refused(capsys):
    with pytest.raises(SystemExit):
        methods.parse(["--data", "digits", "--mix", "-1"])
    assert "invalid share value: '-1'" in capsys.readouterr().err


def runs_settings(*given):
    """The training settings of a command line."""
    widths = ("--teacher-widths", "2", "4", "4")
    return methods.settings_of(methods.parse(["--data", "digits", *widths, *given]))
