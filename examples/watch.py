"""Distil between the sensors of a watch: accelerometer to gyroscope.

    python examples/watch.py

The data are those of quickstart.py: ten people wore a watch and did seven shoulder
exercises. In this script, the teacher reads the accelerometer and the gyroscope, and
has the same labels as the student. The student reads only the gyroscope.

Windows are 2 seconds long (100 steps), and start every second. **Each fold leaves one
person out.** Windows of one person look alike, so a split by window would measure how
well the network remembers people.

Labels are scarce: only `--labeled` people have known labels. The windows of the others
are pairs without a label (255). All methods see the same batches. With
`--drop-unlabeled`, they see only the windows with a label.

With `--data`, the windows come from an `.npz` file with `strong_train`, `weak_train`,
`y_train`, `subject_train`, and the same for `test`: accelerometer and gyroscope,
`(n, steps, channels)`.

Prints a table of accuracies, and writes `results.json`, `student.keras` and its
`history.png`, `structure.png` and `structure.html` to `--out`.
"""

import argparse

import keras
import numpy as np
from compare import PairedData, compare
from models import sequence_cnn

PEOPLE, UNLABELED = 10, 255


def from_seglearn():
    """Windows of both sensors, exercises and people, from seglearn's recordings."""
    from quickstart import windows  # Which imports seglearn.

    acceleration, rotation, exercises, people = windows()
    # In the order of a file whose test set is people 8, 9 and 10.
    order = np.argsort(people > 7, kind="stable")
    return acceleration[order], rotation[order], exercises[order], people[order]


def from_file(path):
    """The same, from an `.npz` file."""
    with np.load(path, allow_pickle=False) as file:
        return tuple(
            np.concatenate([file[f"{name}_train"], file[f"{name}_test"]])
            for name in ("strong", "weak", "y", "subject")
        )


def fold(acceleration, rotation, exercises, people, number, labeled, drop=False):
    """Leaves one person out, and keeps the labels of `labeled` of the others.

    Channels are standardized by the training windows. With `drop`, these are only the
    windows with a label.
    """
    order = np.roll(np.unique(people), -number)
    in_test = people == order[0]
    is_labeled = np.isin(people, order[1 : 1 + labeled])
    in_train = is_labeled if drop else ~in_test

    def standardized(windows):
        train = windows[in_train]
        return (windows - train.mean(axis=(0, 1))) / train.std(axis=(0, 1))

    rotation = standardized(rotation)
    both = np.concatenate([standardized(acceleration), rotation], axis=-1)
    exercises = exercises.astype("int32")
    known = np.where(is_labeled, exercises, UNLABELED)
    return PairedData(
        *(array[in_train] for array in (both, rotation, known)),
        *(array[in_test] for array in (both, rotation, exercises)),
    )


def main():
    """Runs the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="an .npz file of windows")
    parser.add_argument("--folds", type=int, default=PEOPLE)
    parser.add_argument("--labeled", type=int, default=3, help="people with labels")
    parser.add_argument("--drop-unlabeled", action="store_true")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--out", default="out/watch")
    arguments = parser.parse_args()
    windows = from_file(arguments.data) if arguments.data else from_seglearn()
    classes, widths = int(windows[2].max()) + 1, (16, 32, 64)
    steps, channels = windows[1].shape[1:]
    shapes = [(steps, windows[0].shape[-1] + channels), (steps, channels)]
    compare(
        lambda seed: fold(*windows, seed, arguments.labeled, arguments.drop_unlabeled),
        lambda: sequence_cnn(shapes[0], classes, widths, "teacher"),
        lambda: sequence_cnn(shapes[1], classes, widths, "student"),
        seeds=arguments.folds,
        epochs=arguments.epochs,
        batch_size=50,
        out=arguments.out,
        loss=keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, ignore_class=UNLABELED
        ),
    )


if __name__ == "__main__":
    main()
