"""Aligned images of two satellites: Sentinel-2 (optical) and Sentinel-1 (radar).

    python examples/sentinel_pairs.py --out optical_sar.npz

100 pairs of 1024x1024 pixels, by Volkov (github.com/VolkovVl/Optical-SAR-dataset). They
contain modified Copernicus Sentinel data of 2020, which anyone may use and change if
the source is named. The images are downloaded once, 290 MB, to Keras's cache. With
`--images`, they are those of a folder with `opt` and `sar`, as in a clone of that
repository.

Images are halved in resolution and cut into patches of 32x32 pixels, 80 of each scene.
70 scenes are for training, and the other 30 for the test. Nobody labeled them. The
class of a patch is a cluster of colors and gradients of the optical image: land cover
as the optical sensor sees it. So the task is easy for the teacher and hard for the
student by construction. Say so wherever you show a number.
"""

import argparse
import hashlib
from pathlib import Path

import keras
import numpy as np

COMMIT = "34d7e20e68fe59363d383ae9a165bee63c5a7320"
REPOSITORY = "VolkovVl/Optical-SAR-dataset"
SOURCE = f"https://raw.githubusercontent.com/{REPOSITORY}/{COMMIT}/dataset"
SIDES = {"strong": "opt", "weak": "sar"}
PATCH, PATCHES, CLASSES = 32, 80, 8
#: Of all images of both sides, in the order of the arrays.
SHA256 = "dd59d6ed89fb03446ee57db451640df6dad14d2f66155c97d7b92ebcca142525"
#: Names of the scenes.
SCENES = """
    003 004 014 015 018 019 020 021 030 031 034 035 046 047 048 049 050 059 060 061
    062 063 073 074 075 076 087 088 089 100 101 102 127 128 129 130 139 140 141 142
    145 151 155 156 157 161 162 163 164 165 168 169 171 172 175 176 177 187 188 189
    196 199 201 202 207 208 213 214 216 219 220 222 232 234 245 246 247 252 253 255
    256 257 258 259 260 261 262 263 268 269 270 271 272 273 274 280 281 282 283 294
""".split()


def download():
    """The folder with the images, downloaded unless they are there.

    Raises:
        SystemExit: If a file cannot be downloaded.
    """
    files = [f"{side}/{scene}.png" for side in SIDES.values() for scene in SCENES]
    for number, file in enumerate(files, start=1):
        side, name = file.split("/")
        try:
            path = keras.utils.get_file(
                name, f"{SOURCE}/{file}", cache_subdir=f"datasets/sentinel_pairs/{side}"
            )
        except Exception as error:
            raise SystemExit(
                f"Image {number} of {len(files)} was not downloaded: {error}\n"
                "Run this again to go on. Without a network here, clone "
                f"github.com/{REPOSITORY} elsewhere, and give the path of its folder "
                "`dataset`: --images dataset"
            ) from None
    return Path(path).parents[1]


def halved(image):
    """Means of squares of 2x2 pixels: `(h, w, c)` to `(h / 2, w / 2, c)`, uint8."""
    height, width, channels = image.shape
    squares = image.reshape(height // 2, 2, width // 2, 2, channels)
    return np.round(squares.mean((1, 3))).astype("uint8")


def patches(image, size=PATCH):
    """All patches of an image, row by row: `(n, size, size, c)`."""
    height, width, channels = image.shape
    grid = image.reshape(height // size, size, width // size, size, channels)
    return grid.transpose(0, 2, 1, 3, 4).reshape(-1, size, size, channels)


def cut(folder, scenes=SCENES, count=PATCHES):
    """Patches of all scenes.

    Args:
        folder: Folder with `opt` and `sar`.
        scenes: Names of the files, without `.png`.
        count: Number of patches of each scene, at random places.

    Returns:
        Optical patches `(n, 32, 32, 3)` and radar patches `(n, 32, 32, 1)`, both uint8,
        and the number of each patch's scene `(n,)`.
    """
    random = np.random.default_rng(0)
    cut_patches = {modality: [] for modality in SIDES}
    for scene in scenes:
        chosen = None
        for modality, side in SIDES.items():
            image = keras.utils.load_img(Path(folder) / side / f"{scene}.png")
            found = patches(halved(keras.utils.img_to_array(image, "channels_last")))
            if chosen is None:
                chosen = np.sort(random.choice(len(found), count, replace=False))
            cut_patches[modality].append(found[chosen])
    strong, weak = map(np.concatenate, cut_patches.values())
    # The three channels of the radar images are equal.
    return (
        strong,
        weak[..., :1],
        np.repeat(np.arange(len(scenes), dtype="int16"), count),
    )


def statistics(images):
    """Mean and deviation of each color, and the log of the mean gradient: `(n, 7)`."""
    images = images / 255.0
    gray = images.mean(-1)
    gradient = sum(np.abs(np.diff(gray, axis=axis)).mean((1, 2)) for axis in (1, 2))
    log = np.log(gradient + 1e-3)
    return np.column_stack([images.mean((1, 2)), images.std((1, 2)), log])


def land_cover(train, test):
    """Clusters of optical patches, fitted on those for training: labels of both."""
    from sklearn.cluster import KMeans

    of_train, of_test = statistics(train), statistics(test)
    mean, deviation = of_train.mean(0), of_train.std(0)
    clusters = KMeans(CLASSES, n_init=10, random_state=0)
    return (
        clusters.fit_predict((of_train - mean) / deviation).astype("uint8"),
        clusters.predict((of_test - mean) / deviation).astype("uint8"),
    )


def held_out_scenes():
    """Numbers of the 30 scenes for the test."""
    return np.sort(np.random.default_rng(1).permutation(len(SCENES))[:30])


def prepare(folder):
    """All arrays of the data set: dict of name to array.

    Raises:
        SystemExit: If the images are not those that were published.
    """
    strong, weak, scene = cut(folder)
    digest = hashlib.sha256(strong.tobytes() + weak.tobytes()).hexdigest()
    if digest != SHA256:
        raise SystemExit(
            f"The images in {folder} are not those of {REPOSITORY} at {COMMIT[:7]}: "
            "their hash differs. Remove them, and download them again."
        )
    is_test = np.isin(scene, held_out_scenes())
    data = {}
    for part, rows in (("train", ~is_test), ("test", is_test)):
        data[f"strong_{part}"], data[f"weak_{part}"] = strong[rows], weak[rows]
        data[f"scene_{part}"] = scene[rows]
    data["y_train"], data["y_test"] = land_cover(
        data["strong_train"], data["strong_test"]
    )
    return data


def paired_file():
    """Path of an `.npz` file with all arrays, beside the downloaded images."""
    folder = download()
    path = folder / "optical_sar.npz"
    if not path.exists():
        print("Cutting patches; this takes a minute, once.")
        unfinished = path.with_suffix(".unfinished.npz")
        np.savez_compressed(unfinished, **prepare(folder))
        unfinished.replace(path)
    return path


def main():
    """Writes the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, help="folder with `opt` and `sar`")
    parser.add_argument("--out", type=Path, default=Path("optical_sar.npz"))
    arguments = parser.parse_args()
    data = prepare(arguments.images or download())
    np.savez_compressed(arguments.out, **data)
    counts = (len(data[f"y_{part}"]) for part in ("train", "test"))
    print(
        "Wrote {} pairs to train on and {} to test to {}".format(*counts, arguments.out)
    )


if __name__ == "__main__":
    main()
