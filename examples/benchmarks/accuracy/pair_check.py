"""How often `check_pairs` is wrong or unclear, on good pairs and on bad pairs.

For each data set, a teacher is trained for some epochs. The student keeps its initial
weights, as when a user checks pairs. Then the script draws subsets of several sizes
from the test data many times. It checks them unchanged, with the student's side
shuffled, and with the student's side shifted by one place after sorting by class.

    python examples/benchmarks/accuracy/pair_check.py [--data folder with .npz files]

The files are those that `optical_to_radar.py` takes. Without them, scikit-learn's
digits and a degraded copy of them are used.
"""

import argparse
import sys
import warnings
from pathlib import Path

import keras
import numpy as np

import keras_dskd

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import digits
import optical_to_radar
from models import cnn

SIZES = (64, 128, 256, 512)


def data_sets(folder):
    """`(name, PairedData)` of the digits, and of each file in the folder."""
    yield "digits", digits.load()
    for path in sorted(folder.glob("*.npz")) if folder else []:
        yield path.stem, optical_to_radar.load(path)


def models(data, epochs):
    """A trained teacher and an untrained student."""
    teacher, student = (
        cnn(x.shape[1:], data.classes, (16, 32, 64), name)
        for x, name in (
            (data.strong_train, "teacher"),
            (data.weak_train, "student"),
        )
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    teacher.compile("adam", loss)
    teacher.fit(
        data.strong_train, data.y_train, epochs=epochs, batch_size=64, verbose=0
    )
    return teacher, student


def answer(teacher, student, x_teacher, x_student, y=None):
    """The answer of `check_pairs`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return keras_dskd.check_pairs(
            teacher,
            student,
            {"teacher": x_teacher, "student": x_student},
            y,
            permutations=199,
            verbose=0,
        ).answer


def rates(teacher, student, data, size, repeats, seed):
    """Shares of draws for which `check_pairs` was wrong, and was unclear.

    Returns:
        Array `(4, 2)`: for good pairs, shuffled pairs, good pairs with labels, and
        shifted pairs with labels.
    """
    good, bad = ("shuffled", "unclear"), ("paired", "unclear")
    random = np.random.default_rng(seed)
    found = []
    for _ in range(repeats):
        drawn = random.permutation(len(data.y_test))[:size]
        drawn = drawn[np.argsort(data.y_test[drawn], kind="stable")]
        strong, weak = data.strong_test[drawn], data.weak_test[drawn]
        y = data.y_test[drawn]
        shuffled = weak[random.permutation(size)]
        shifted = np.roll(weak, 1, axis=0)
        checks = (
            (answer(teacher, student, strong, weak), good),
            (answer(teacher, student, strong, shuffled), bad),
            (answer(teacher, student, strong, weak, y), good),
            (answer(teacher, student, strong, shifted, y), bad),
        )
        found.append([[given == one for one in which] for given, which in checks])
    return np.mean(found, axis=0)


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of .npz files")
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(
        "| data | pairs | good pairs look shuffled / unclear "
        "| shuffled pairs look paired / unclear | good pairs with `y` "
        "| shifted by one, with `y` |"
    )
    print("|---|---|---|---|---|---|")
    for name, data in data_sets(arguments.data):
        keras.utils.set_random_seed(arguments.seed)
        teacher, student = models(data, arguments.epochs)
        for size in SIZES:
            shares = rates(
                teacher, student, data, size, arguments.repeats, arguments.seed
            )
            cells = " | ".join(
                " / ".join(f"{share:.0%}" for share in of_kind) for of_kind in shares
            )
            print(f"| {name} | {size} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
