"""Choosing a method per seed on validation rows, and its runs on test rows."""

import pytest

method_choice = pytest.importorskip("method_choice")

pytestmark = pytest.mark.backend_neutral

CANDIDATES = ["student", "soft_targets", "recommended"]


def runs(accuracies, split, **changed):
    """Records of `{method: accuracies by seed}`. Validation rows train for longer."""
    shared = {"data": "pairs", "degrade": None, "limit": None, "backend": "jax"}
    shared |= {"mix": 0.0, "network": "cnn", "weight": None, "split": split}
    shared |= {"epochs": 10 if split == "test" else 12}
    return [
        {**shared, "method": method, "seed": seed, "accuracy": accuracy, **changed}
        for method, of_seeds in accuracies.items()
        for seed, accuracy in enumerate(of_seeds)
    ]


VALIDATION = runs(
    {"student": (0.5, 0.7), "soft_targets": (0.6, 0.6), "recommended": (0.4, 0.6)},
    "validation",
)
TEST = runs(
    {"teacher": (1, 1), "student": (0.1, 0.2), "soft_targets": (0.3, 0.4)}, "test"
) + runs({"recommended": (0.9, 0.9)}, "test")


def chosen(records):
    return [
        (record["data"], record["seed"], record["chosen"], record["accuracy"])
        for record in records
        if record["method"] == "chosen"
    ]


def test_validation_rows_choose_for_each_seed():
    found = method_choice.with_chosen([*VALIDATION, *TEST], CANDIDATES)
    # Test rows do not influence the choice: `recommended` is best on these.
    assert chosen(found) == [
        ("pairs", 0, "soft_targets", 0.3),
        ("pairs", 1, "student", 0.2),
    ]
    assert {record["split"] for record in found} == {"test"}
    assert [record for record in found if record["method"] != "chosen"] == TEST


def test_first_of_equally_good_candidates_is_chosen():
    equal = runs({"soft_targets": (0.5,), "student": (0.5,)}, "validation")
    found = method_choice.with_chosen([*equal, *TEST[:8]], ["student", "soft_targets"])
    assert chosen(found) == [("pairs", 0, "student", 0.1)]


def test_settings_are_chosen_for_apart():
    other = [
        *runs({"student": (0.9,), "soft_targets": (0.1,)}, "validation", labeled=50),
        *runs({"student": (0.7,), "soft_targets": (0.8,)}, "test", labeled=50),
    ]
    found = method_choice.with_chosen([*VALIDATION, *TEST, *other], CANDIDATES[:2])
    assert chosen(found)[-1] == ("pairs", 0, "student", 0.7)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (TEST, "no runs on validation rows"),
        (
            [r for r in VALIDATION if r["method"] != "student" or r["seed"]] + TEST,
            "pairs, seed 0: student was not run on validation rows",
        ),
        (
            [*VALIDATION, *(r for r in TEST if r["method"] != "recommended")],
            "pairs, seed 0: recommended was not run on test rows",
        ),
        (
            [*VALIDATION, *[{**r, "epochs": 3} for r in VALIDATION], *TEST],
            "pairs, seed 0: student has several runs on validation rows",
        ),
    ],
)
def test_choice_that_lacks_a_run_is_refused(records, message):
    with pytest.raises(SystemExit, match=message):
        method_choice.with_chosen(records, CANDIDATES)


def test_counts_say_how_often_each_was_chosen():
    found = method_choice.with_chosen([*VALIDATION, *TEST], CANDIDATES)
    runs = {r["seed"]: r for r in found if r["method"] == "chosen"}
    assert method_choice.counts(runs) == "soft_targets 1, student 1"
