"""Choosing the number of epochs per benchmark method on validation rows."""

import pytest

epoch_choice = pytest.importorskip("epoch_choice")

pytestmark = pytest.mark.backend_neutral


def runs(method, of_epochs, split="validation", seeds=(0, 1), **changed):
    """Records with the given accuracy by epochs, plus 0.01 times the seed."""
    shared = {"data": "pairs", "degrade": None, "limit": None, "backend": "jax"}
    shared |= {"mix": 0.0, "network": "cnn"}
    return [
        {
            **shared,
            "split": split,
            "method": method,
            "epochs": epochs,
            "seed": seed,
            "accuracy": round(accuracy + seed / 100, 2),
            **changed,
        }
        for epochs, accuracy in of_epochs.items()
        for seed in seeds
    ]


CHOICE = [
    *runs("teacher", {5: 0.9, 10: 0.9}),
    *runs("student", {5: 0.6, 10: 0.5}),
    *runs("recommended", {5: 0.6, 10: 0.7}),
]
KEY = ("pairs", None, None, 0.0, "cnn")


def test_best_epochs_have_the_highest_mean_accuracy():
    assert epoch_choice.best_epochs(CHOICE) == {KEY: {"student": 5, "recommended": 10}}
    equal = runs("student", {10: 0.5, 5: 0.5})
    assert epoch_choice.best_epochs(equal) == {KEY: {"student": 5}}
    # The highest accuracy of a single seed does not decide; the mean does.
    mixed = [
        *runs("student", {5: 0.6}),
        *runs("student", {10: 0.9}, seeds=(0,)),
        *runs("student", {10: 0.1}, seeds=(1,)),
    ]
    assert epoch_choice.best_epochs(mixed) == {KEY: {"student": 5}}


def test_each_data_set_and_setting_has_its_own_choice():
    few = runs("student", {5: 0.1, 10: 0.2}, limit=100)
    blurred = runs("student", {5: 0.1, 20: 0.2}, degrade="speckle:1")
    mixed = runs("student", {5: 0.1, 40: 0.2}, mix=1.0)
    assert epoch_choice.best_epochs([*CHOICE, *few, *blurred, *mixed]) == {
        KEY: {"student": 5, "recommended": 10},
        ("pairs", None, 100, 0.0, "cnn"): {"student": 10},
        ("pairs", "speckle:1", None, 0.0, "cnn"): {"student": 20},
        ("pairs", None, None, 1.0, "cnn"): {"student": 40},
    }


def test_test_rows_do_not_influence_the_choice():
    tests = runs("student", {5: 0.1, 10: 0.99}, split="test")
    assert epoch_choice.best_epochs([*CHOICE, *tests])[KEY]["student"] == 5
    with pytest.raises(SystemExit, match="--on validation --epochs"):
        epoch_choice.best_epochs(tests)


def test_epochs_compared_over_different_seeds_are_refused():
    partly = [*runs("student", {5: 0.6}), *runs("student", {10: 0.7}, seeds=(1,))]
    with pytest.raises(SystemExit, match="student was run with other seeds"):
        epoch_choice.best_epochs(partly)


def test_table_takes_test_rows_at_the_best_epochs():
    tests = [
        *runs("teacher", {5: 0.9, 10: 0.9}, split="test"),
        *runs("student", {5: 0.3, 10: 0.4}, split="test"),
        *runs("recommended", {10: 0.2}, split="test"),
        *runs("student", {5: 0.3}, split="test", data="never chosen for"),
    ]
    found = epoch_choice.at_best_epochs([*CHOICE, *tests])
    assert [(r["method"], r["seed"], r["accuracy"]) for r in found] == [
        ("teacher", 0, 0.9),
        ("teacher", 1, 0.91),
        ("student", 0, 0.3),
        ("student", 1, 0.31),
        ("recommended", 0, 0.2),
        ("recommended", 1, 0.21),
    ]
    assert all(r["epochs"] == {"student": 5, "recommended": 10} for r in found)


@pytest.mark.parametrize("method", ["recommended", "dskd"])
def test_method_not_run_at_its_best_epochs_is_refused(method):
    tests = [
        *runs("student", {5: 0.3}, split="test"),
        *runs(method, {5: 0.2}, split="test"),
    ]
    with pytest.raises(SystemExit, match=f"{method} was not run on test rows"):
        epoch_choice.at_best_epochs([*CHOICE, *tests])
