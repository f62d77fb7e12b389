"""The script that downloads and cuts pairs of satellite images."""

import functools
import os
from pathlib import Path

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.backend_neutral

ROOT = Path(__file__).parents[2]
sentinel_pairs = pytest.importorskip("sentinel_pairs")
FILE = os.environ.get("OPTICAL_SAR_NPZ", "")


def test_a_halved_image_has_the_means_of_squares():
    image = np.zeros((2, 4, 1))
    image[:, :2, 0] = [[10, 20], [30, 41]]  # Mean 25.25.
    image[:, 2:, 0] = [[0, 1], [2, 3]]  # Mean 1.5.
    np.testing.assert_array_equal(sentinel_pairs.halved(image)[..., 0], [[25, 2]])


def test_patches_come_row_by_row():
    image = np.arange(36).reshape(6, 6, 1)
    found = sentinel_pairs.patches(image, size=3)
    assert found.shape == (4, 3, 3, 1)
    np.testing.assert_array_equal(found[:, 0, 0, 0], [0, 3, 18, 21])
    np.testing.assert_array_equal(found[1, ..., 0], image[:3, 3:, 0])


def write_scenes(folder, names, size=192):
    """Scenes whose optical and radar images differ by a known change."""
    random = np.random.default_rng(0)
    images = {}
    for name in names:
        images[name] = random.integers(0, 256, (size, size, 3), "uint8")
        radar = np.repeat(255 - images[name][..., :1], 3, axis=-1)
        for side, image in (("opt", images[name]), ("sar", radar)):
            (folder / side).mkdir(exist_ok=True)
            keras.utils.save_img(folder / side / f"{name}.png", image, scale=False)
    return images


def test_both_sides_are_cut_at_the_same_places(tmp_path):
    pytest.importorskip("PIL", reason="images are read with Pillow")
    images = write_scenes(tmp_path, ["a", "b"])
    strong, weak, scene = sentinel_pairs.cut(tmp_path, ["a", "b"], count=4)
    assert strong.shape == (8, 32, 32, 3) and weak.shape == (8, 32, 32, 1)
    np.testing.assert_array_equal(scene, np.repeat([0, 1], 4))
    # The mean of 255 - x is 255 - the mean of x, apart from rounding halves to even.
    difference = weak[..., 0] - (255.0 - strong[..., 0])
    assert np.abs(difference).max() <= 1
    assert np.mean(difference == 0) > 0.7
    # Each patch is a part of its own scene, in the order of the scene.
    for name, number in (("a", 0), ("b", 1)):
        means = images[name].reshape(96, 2, 96, 2, 3).mean((1, 3)).round()
        all_patches = [
            means[row : row + 32, column : column + 32]
            for row in (0, 32, 64)
            for column in (0, 32, 64)
        ]
        places = [
            next(i for i, one in enumerate(all_patches) if np.array_equal(one, patch))
            for patch in strong[scene == number]
        ]
        assert places == sorted(set(places))


def test_images_of_another_source_are_refused(tmp_path, monkeypatch):
    pytest.importorskip("PIL", reason="images are read with Pillow")
    few = functools.partial(sentinel_pairs.cut, scenes=sentinel_pairs.SCENES[:2])
    monkeypatch.setattr(sentinel_pairs, "cut", few)
    pixels = np.zeros((1024, 1024, 3), "uint8")
    for side in ("opt", "sar"):
        (tmp_path / side).mkdir()
        for scene in sentinel_pairs.SCENES[:2]:
            path = tmp_path / side / f"{scene}.png"
            keras.utils.save_img(path, pixels, scale=False)
    with pytest.raises(SystemExit, match="their hash differs"):
        sentinel_pairs.prepare(tmp_path)


def test_without_a_network_it_says_what_to_do(monkeypatch):
    def unreachable(name, origin, **kwargs):
        assert origin.endswith("/dataset/opt/003.png")
        raise Exception(f"URL fetch failure on {origin}: None -- unreachable")

    monkeypatch.setattr(keras.utils, "get_file", unreachable)
    with pytest.raises(SystemExit, match=r"Image 1 of 200 .*\n.*--images dataset"):
        sentinel_pairs.download()


@pytest.mark.skipif(not FILE, reason="OPTICAL_SAR_NPZ does not name a prepared file")
def test_prepared_pairs_have_these_scenes_and_labels():
    with np.load(FILE) as file:
        data = {key: file[key] for key in file}
    np.testing.assert_array_equal(
        np.unique(data["scene_test"]), sentinel_pairs.held_out_scenes()
    )
    found = sentinel_pairs.land_cover(data["strong_train"], data["strong_test"])
    for labels, part in zip(found, ("train", "test"), strict=True):
        np.testing.assert_array_equal(labels, data[f"y_{part}"])
