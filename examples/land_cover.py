"""Distil land-cover segmentation from optical images to radar.

    python examples/land_cover.py
    python examples/land_cover.py --data optical_sar.npz

**Without a file, everything is synthetic.** Two photos that come with scikit-learn
stand in for optical scenes. "Radar" is the photo's brightness at half the resolution
under the speckle of a single look (`degradations.py`). The right-hand part of each
photo is the test set, and shares no pixel with the training tiles.

With `--data`, the tiles come from an `.npz` file in the format of
`optical_to_radar.py`: `strong_train` (optical), `weak_train` (radar), `strong_test` and
`weak_test`.

**No person labeled the pixels.** The class of a pixel is the k-means cluster of its
optical colors, averaged over 5x5 pixels: "land cover as the optical sensor sees it". By
construction, the task is easy in optical images and hard in radar, which is the
situation that the method is for.

Labels are sparse, as if people had visited only a few points: `--points` random pixels
of each training tile have a label, and the others are ignored (255). The score uses all
pixels of the test set.

Prints a table of mean IoU, and writes `results.json`, `student.keras` and its
`history.png`, `structure.png` and `structure.html` to `--out`.
"""

import argparse

import keras
import numpy as np
from compare import PairedData, alone, compare, soft_targets
from degradations import resolution, speckle
from models import unet
from scipy import ndimage
from sklearn.cluster import KMeans
from sklearn.datasets import load_sample_images

import keras_dskd

SIDE, CLASSES, UNLABELED = 32, 5, 255


def photos(seed=0):
    """Tiles of two photos: optical and simulated radar, for training and for test."""
    rng = np.random.default_rng(seed)
    parts = []
    for first, last, stride in ((0, 0.65, 24), (0.7, 1, SIDE)):
        optical = [
            photo[top : top + SIDE, left : left + SIDE] / np.float32(255)
            for photo in load_sample_images().images
            for top in range(0, photo.shape[0] - SIDE + 1, stride)
            for left in range(
                round(first * photo.shape[1]),
                round(last * photo.shape[1]) - SIDE + 1,
                stride,
            )
        ]
        optical = np.stack(optical)  # (tiles, 32, 32, 3)
        brightness = optical.mean(axis=-1, keepdims=True)
        coarse = resolution(brightness, np.log(2) / np.log(SIDE))  # 16x16 cells
        parts.append((optical, speckle(coarse, 1.0, rng)))
    (optical, radar), (optical_test, radar_test) = parts
    return optical, radar, optical_test, radar_test


def tiles_of(path, count):
    """Tiles from a file: at most `count` for training, and half as many for test."""
    rng = np.random.default_rng(0)
    arrays = []
    with np.load(path, allow_pickle=False) as file:
        for part, most in (("train", count), ("test", count // 2)):
            rows = rng.permutation(len(file[f"strong_{part}"]))[:most]
            for modality in ("strong", "weak"):
                arrays.append(file[f"{modality}_{part}"][rows] / np.float32(255))
    return arrays


def labeled(optical, radar, optical_test, radar_test, points):
    """Pairs with a class for some training pixels, and for each test pixel."""
    rng = np.random.default_rng(0)

    def colors(tiles):
        return ndimage.uniform_filter(tiles, (1, 5, 5, 1)).reshape(-1, tiles.shape[-1])

    sample = rng.permutation(colors(optical))[:20_000]
    clusters = KMeans(CLASSES, n_init=4, random_state=0).fit(sample)

    def classes(tiles):
        return clusters.predict(colors(tiles)).reshape(tiles.shape[:-1]).astype("int32")

    y = classes(optical)
    order = rng.random((len(y), y[0].size)).argsort(axis=-1).reshape(y.shape)
    y[order >= points] = UNLABELED
    return PairedData(
        optical, radar, y, optical_test, radar_test, classes(optical_test)
    )


def mean_iou(model, x, y):
    """Intersection over union of each class over all pixels, averaged over classes."""
    predicted = model.predict(x, verbose=0).argmax(axis=-1)
    pairs = np.bincount((CLASSES * y + predicted).ravel(), minlength=CLASSES**2)
    pairs = pairs.reshape(CLASSES, CLASSES)  # Rows: true classes.
    both = np.diag(pairs)
    return float(np.mean(both / (pairs.sum(axis=0) + pairs.sum(axis=1) - both)))


def channel_wise(teacher, student, steps):
    """Soft targets, and channel-wise distillation of the logits."""
    losses = [
        keras_dskd.losses.SoftTargets(4.0),
        keras_dskd.losses.ChannelWiseDistillation(4.0),
    ]
    return keras_dskd.Distiller(teacher, student, losses)


def recommended(teacher, student, steps):
    """The recipe, which picks two stages of the encoders."""
    return keras_dskd.recommended(teacher, student, steps=steps)


METHODS = {
    "student alone": alone,
    "+ soft targets": soft_targets,
    "+ channel-wise": channel_wise,
    "+ recommended": recommended,
}


def main():
    """Runs the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="an .npz file of paired tiles")
    parser.add_argument("--tiles", type=int, default=1000, help="tiles from the file")
    parser.add_argument("--points", type=int, default=8, help="labels per tile")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", default="out/land_cover")
    arguments = parser.parse_args()
    tiles = tiles_of(arguments.data, arguments.tiles) if arguments.data else photos()
    data = labeled(*tiles, arguments.points)
    shapes = data.strong_train.shape[1:], data.weak_train.shape[1:]
    compare(
        data,
        lambda: unet(shapes[0], CLASSES, (16, 32, 64), "teacher"),
        lambda: unet(shapes[1], CLASSES, (8, 16, 32), "student"),
        seeds=arguments.seeds,
        epochs=arguments.epochs,
        batch_size=32,
        out=arguments.out,
        loss=keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, ignore_class=UNLABELED
        ),
        methods=METHODS,
        score=mean_iou,
        score_name="mean IoU",
        layers=("encoder2", "encoder3"),
    )


if __name__ == "__main__":
    main()
