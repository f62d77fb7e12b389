"""Distil from optical images to radar: Sentinel-2 to Sentinel-1.

    python examples/optical_to_radar.py

Downloads 100 pairs of Sentinel images once (290 MB; see sentinel_pairs.py), and cuts
8,000 pairs of patches from them. With `--data`, the pairs are those of an `.npz` file.
It holds, as uint8 arrays, `strong_train` and `strong_test` (optical, `(n, height,
width, 3)`), `weak_train` and `weak_test` (radar, `(n, height, width, channels)`), and
`y_train` and `y_test` (class indices, `(n,)`). Row i of strong and weak shows the same
place.

Prints a table of test accuracies, and writes `results.json`, `student.keras` and
its `history.png`, `structure.png` and `structure.html` to `--out`.
"""

import argparse

import numpy as np
import sentinel_pairs
from compare import PairedData, compare
from models import cnn

KEYS = ("strong_train", "weak_train", "y_train", "strong_test", "weak_test", "y_test")


def load(path):
    """Reads paired images from a file of the format above.

    Raises:
        SystemExit: If an array is missing, or rows do not pair.
    """
    with np.load(path, allow_pickle=False) as file:
        missing = [key for key in KEYS if key not in file]
        if missing:
            raise SystemExit(f"{path} lacks {missing}. It holds {sorted(file)}.")
        arrays = {key: file[key] for key in KEYS}
    for part in ("train", "test"):
        counts = {key: len(arrays[key]) for key in KEYS if key.endswith(part)}
        if len(set(counts.values())) > 1:
            raise SystemExit(f"{path}: rows do not pair: {counts}")
    for key, array in arrays.items():
        if key.startswith("y_"):
            arrays[key] = array.astype("int32")
        elif array.dtype == np.uint8:
            arrays[key] = array / np.float32(255)
        else:
            arrays[key] = array.astype("float32")
    return PairedData(**arrays)


def main():
    """Runs the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="an .npz file of paired images")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--out", default="out/optical_to_radar")
    arguments = parser.parse_args()
    data = load(arguments.data or sentinel_pairs.paired_file())
    widths = (16, 32, 64, 64)
    compare(
        data,
        lambda: cnn(data.strong_train.shape[1:], data.classes, widths, "teacher"),
        lambda: cnn(data.weak_train.shape[1:], data.classes, widths, "student"),
        seeds=arguments.seeds,
        epochs=arguments.epochs,
        batch_size=100,
        out=arguments.out,
    )


if __name__ == "__main__":
    main()
