"""Degradations of the examples: what they leave, and what they take."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import degradations

NAMES = sorted(degradations.DEGRADATIONS)


def images(count=8, size=32, channels=3):
    return np.random.default_rng(0).random((count, size, size, channels), "float32")


def degraded(name, strength, x=None, seed=1):
    x = images() if x is None else x
    return degradations.degrade(x, name, strength, np.random.default_rng(seed))


def one_row(*values):
    return np.array(values, "float32").reshape(1, 1, -1, 1)


@pytest.mark.parametrize("name", NAMES)
def test_strength_0_leaves_images_as_they_are(name):
    np.testing.assert_array_equal(degraded(name, 0), images())


@pytest.mark.parametrize("name", NAMES)
def test_images_keep_shape_and_are_float32_and_the_given_ones_are_not_changed(name):
    x = images().astype("float64")
    before = x.copy()
    result = degraded(name, 0.5, x)
    assert result.shape == x.shape
    assert result.dtype == np.float32
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("name", NAMES)
def test_a_stronger_degradation_is_further_from_the_images(name):
    # 32 pixels in 32, 16, 8, 4, 2 and 1 cells: each a part of the one before.
    distances = [
        np.mean((degraded(name, strength) - images()) ** 2)
        for strength in (0, 0.2, 0.4, 0.6, 0.8, 1)
    ]
    assert np.all(np.diff(distances) > 0)


@pytest.mark.parametrize("name", ["speckle", "occlusion"])
def test_a_seed_gives_one_result_and_another_seed_another(name):
    np.testing.assert_array_equal(degraded(name, 0.5), degraded(name, 0.5))
    assert np.any(degraded(name, 0.5) != degraded(name, 0.5, seed=2))


def test_cells_are_means_by_hand():
    # 4^(1 - 0.5) = 2 cells in the row, and 1 in the column of one pixel.
    x = one_row(0.0, 1.0, 0.5, 0.7)
    expected = one_row(0.5, 0.5, 0.6, 0.6)
    np.testing.assert_allclose(degradations.resolution(x, 0.5), expected, rtol=1e-6)


def test_cells_differ_by_a_pixel_where_the_side_is_no_multiple():
    # 5^(1 - 0.5) = 2.2, 2 cells, of 2 and 3 pixels.
    x = one_row(0.0, 1.0, 0.3, 0.6, 0.9)
    expected = one_row(0.5, 0.5, 0.6, 0.6, 0.6)
    np.testing.assert_allclose(degradations.resolution(x, 0.5), expected, rtol=1e-6)


def test_the_coarsest_resolution_is_each_images_mean():
    x = images()
    expected = np.broadcast_to(x.mean(axis=(1, 2), keepdims=True), x.shape)
    np.testing.assert_allclose(degradations.resolution(x, 1), expected, rtol=1e-5)


@pytest.mark.parametrize("strength", [0.25, 1])
def test_speckle_has_mean_1_and_the_strength_as_standard_deviation(strength):
    x = np.full((50, 32, 32, 2), 0.5, "float32")
    noise = degraded("speckle", strength, x) / 0.5
    # 102,400 values: their mean is known to a standard error of 0.0031 at most.
    assert noise.mean() == pytest.approx(1, abs=0.015)
    assert noise.std() == pytest.approx(strength, rel=0.03)


def test_occlusion_blackens_the_strengths_share_in_a_rectangle():
    x = np.ones((20, 32, 16, 1), "float32")
    black = degraded("occlusion", 0.25, x)[..., 0] == 0
    assert np.all(black.sum(axis=(1, 2)) == 16 * 8)
    assert np.all(black.any(axis=2).sum(axis=1) == 16)
    assert np.all(black.any(axis=1).sum(axis=1) == 8)
    # Not all at one place.
    assert len({tuple(np.argwhere(image)[0]) for image in black}) > 5


def test_a_larger_occlusion_covers_a_smaller_one():
    x = np.ones((50, 32, 32, 1), "float32")
    smaller, larger = (degraded("occlusion", s, x) == 0 for s in (0.3, 0.4))
    assert np.all(larger[smaller])


def test_colours_fade_to_their_mean_by_hand():
    x = np.array([0.0, 0.3, 0.9], "float32").reshape(1, 1, 1, 3)
    half = degradations.colour_loss(x, 0.5).ravel()
    np.testing.assert_allclose(half, [0.2, 0.35, 0.65], rtol=1e-6)
    np.testing.assert_allclose(degradations.colour_loss(x, 1), 0.4, rtol=1e-6)


def test_grey_images_have_no_colours_to_lose():
    with pytest.raises(ValueError, match=r"colours to lose.*\(8, 32, 32, 1\)"):
        degraded("colour_loss", 0.5, images(channels=1))


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
@pytest.mark.parametrize("name", NAMES)
def test_a_strength_out_of_range_is_refused(name, strength):
    with pytest.raises(ValueError, match=f"between 0 and 1.*strength={strength}"):
        degraded(name, strength)


@pytest.mark.parametrize("name", NAMES)
def test_whole_numbers_are_refused(name):
    with pytest.raises(ValueError, match="images.dtype=uint8. Divide"):
        degraded(name, 0.5, (255 * images()).astype("uint8"))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_batch_of_images_is_refused(name):
    with pytest.raises(ValueError, match=r"images.shape=\(32, 32, 3\)"):
        degraded(name, 0.5, images()[0])


def test_an_unknown_name_is_refused_and_the_known_ones_named():
    with pytest.raises(ValueError, match="no degradation 'fog'.*speckle"):
        degraded("fog", 0.5)
