"""Distil from images to degraded images, on data that ships with scikit-learn.

The strong modality is handwritten digits with 8x8 gray values. The weak modality is the
same digits at half the resolution, with low contrast and noise. The teacher learns from
the strong modality. Students see only the weak modality.

    python examples/digits.py

Prints a table of test accuracies, and writes `results.json`, `student.keras` and its
`history.png`, `structure.png` and `structure.html` to `--out`.
"""

import argparse

import numpy as np
from compare import PairedData, compare
from models import cnn
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def load():
    """Digits and their degraded versions: 1,000 training pairs and 797 test pairs."""
    digits = load_digits()
    strong = (digits.images / 16).astype("float32")[..., None]  # (n, 8, 8, 1)
    rows = np.arange(len(strong))
    train, test = train_test_split(
        rows, train_size=1000, stratify=digits.target, random_state=0
    )
    weak = degrade(strong, np.random.default_rng(0))
    target = digits.target.astype("int32")
    return PairedData(
        strong[train],
        weak[train],
        target[train],
        strong[test],
        weak[test],
        target[test],
    )


def degrade(images, rng):
    """Halves the resolution and the contrast, and adds Gaussian noise of 0.1."""
    count, height, width, channels = images.shape
    coarse = images.reshape(count, height // 2, 2, width // 2, 2, channels)
    coarse = coarse.mean(axis=(2, 4)).repeat(2, axis=1).repeat(2, axis=2)
    return (0.5 * coarse + rng.normal(0, 0.1, images.shape)).astype("float32")


def main():
    """Runs the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", default="out/digits")
    arguments = parser.parse_args()
    data = load()
    shape, widths = data.strong_train.shape[1:], (16, 32, 64)
    compare(
        data,
        lambda: cnn(shape, data.classes, widths, "teacher"),
        lambda: cnn(shape, data.classes, widths, "student"),
        seeds=arguments.seeds,
        epochs=arguments.epochs,
        batch_size=50,
        out=arguments.out,
    )


if __name__ == "__main__":
    main()
