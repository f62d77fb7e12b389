"""Choose the number of epochs for each method on validation rows.

A method that only delays overfitting would win if all methods train for too long, and
lose if all stop early. With its own best number of epochs, each method is at its best.
"""

from collections import defaultdict

import numpy as np
from records import key


def best_epochs(records):
    """The number of epochs with the best mean accuracy on validation rows.

    If several numbers are equally good, the smallest is chosen. The teacher is left
    out, because its number of epochs is the same in all runs.

    Args:
        records: Records. Records of test rows are ignored.

    Returns:
        Dict of training data, as returned by `trained_on`, -> dict of method -> epochs.

    Raises:
        SystemExit: If no record is from validation rows, or a method was not run with
            the same seeds for all its numbers of epochs.
    """
    accuracies = defaultdict(lambda: defaultdict(dict))
    for record in records:
        if record["split"] == "validation" and record["method"] != "teacher":
            of_epochs = accuracies[trained_on(record), record["method"]]
            of_epochs[record["epochs"]][record["seed"]] = record["accuracy"]
    if not accuracies:
        raise SystemExit(
            "Epochs are chosen by runs on validation rows, and there are none. Make "
            "them: methods.py --on validation --epochs 5 10 20"
        )
    best = defaultdict(dict)
    for (learned, method), of_epochs in accuracies.items():
        if len({frozenset(of_seed) for of_seed in of_epochs.values()}) > 1:
            raise SystemExit(
                f"{learned[0]}: {method} was run with other seeds at some numbers "
                "of epochs than at others. Run the rest of them."
            )
        means = {
            epochs: np.mean(list(of_seed.values()))
            for epochs, of_seed in of_epochs.items()
        }
        best[learned][method] = max(sorted(means), key=means.get)
    return dict(best)


def at_best_epochs(records):
    """The records of test rows with the best number of epochs of each method.

    Args:
        records: Records of validation and of test rows.

    Returns:
        New records. Their `epochs` is the same entry for all: the best numbers of all
        methods, so that they form one table. For a teacher, one record per seed is
        kept.

    Raises:
        SystemExit: As `best_epochs`, or if a method's best epochs were not run.
    """
    best = best_epochs(records)
    tests = [
        record
        for record in records
        if record["split"] == "test" and trained_on(record) in best
    ]
    kept = {}
    for record in tests:
        epochs, method = best[trained_on(record)], record["method"]
        if method == "teacher" or record["epochs"] == epochs.get(method):
            shared = {**record, "epochs": epochs}
            kept.setdefault(key(shared), shared)
    lost = {(trained_on(record), record["method"]) for record in tests} - {
        (trained_on(record), record["method"]) for record in kept.values()
    }
    if lost:
        learned, method = min(lost, key=str)
        raise SystemExit(
            f"{learned[0]}: {method} was not run on test rows with the epochs that "
            f"are best on validation rows: {best[learned].get(method, 'not run')}"
        )
    # Test rows were run by number of epochs. Restore the order of the methods.
    return sorted(
        kept.values(),
        key=lambda record: ["teacher", *record["epochs"]].index(record["method"]),
    )


def trained_on(record):
    """The entries of a record that describe the training data of a choice."""
    names = ("data", "degrade", "limit", "mix", "network")
    labels = ("labeled", "labeled_scenes", "teacher_rows", "pairs")
    names += tuple(name for name in labels if record.get(name) not in (None, "all"))
    return tuple(record.get(name) for name in names)
