"""The examples' image degradations: what they keep and what they remove."""

import degradations
import numpy as np
import pytest

pytestmark = pytest.mark.backend_neutral

NAMES = sorted(degradations.DEGRADATIONS)


def images(count=8, size=32, channels=3):
    return np.random.default_rng(0).random((count, size, size, channels), "float32")


def degraded(name, strength, x=None, seed=1):
    x = images() if x is None else x
    return degradations.degrade(x, name, strength, np.random.default_rng(seed))


def one_row(*values):
    return np.array(values, "float32").reshape(1, 1, -1, 1)


@pytest.mark.parametrize("name", NAMES)
def test_strength_0_changes_nothing(name):
    np.testing.assert_array_equal(degraded(name, 0), images())


@pytest.mark.parametrize("name", NAMES)
def test_result_is_a_new_float32_array_of_the_same_shape(name):
    x = images().astype("float64")
    before = x.copy()
    result = degraded(name, 0.5, x)
    assert result.shape == x.shape
    assert result.dtype == np.float32
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("name", NAMES)
def test_more_strength_changes_images_more(name):
    # Resolution: 32 pixels in 32, 16, 8, 4, 2 and 1 cells.
    distances = [
        np.mean((degraded(name, strength) - images()) ** 2)
        for strength in (0, 0.2, 0.4, 0.6, 0.8, 1)
    ]
    assert np.all(np.diff(distances) > 0)


@pytest.mark.parametrize("name", ["speckle", "occlusion"])
def test_result_depends_on_the_seed_only(name):
    np.testing.assert_array_equal(degraded(name, 0.5), degraded(name, 0.5))
    assert np.any(degraded(name, 0.5) != degraded(name, 0.5, seed=2))


def test_resolution_averages_cells():
    # 4^(1 - 0.5) = 2 cells per row. The columns have one pixel, so one cell.
    x = one_row(0.0, 1.0, 0.5, 0.7)
    expected = one_row(0.5, 0.5, 0.6, 0.6)
    np.testing.assert_allclose(degradations.resolution(x, 0.5), expected, rtol=1e-6)


def test_resolution_of_an_indivisible_side_makes_uneven_cells():
    # 5^(1 - 0.5) = 2.2: two cells, of 2 and 3 pixels.
    x = one_row(0.0, 1.0, 0.3, 0.6, 0.9)
    expected = one_row(0.5, 0.5, 0.6, 0.6, 0.6)
    np.testing.assert_allclose(degradations.resolution(x, 0.5), expected, rtol=1e-6)


def test_lowest_resolution_is_the_mean_of_each_image():
    x = images()
    expected = np.broadcast_to(x.mean(axis=(1, 2), keepdims=True), x.shape)
    np.testing.assert_allclose(degradations.resolution(x, 1), expected, rtol=1e-5)


@pytest.mark.parametrize("strength", [0.25, 1])
def test_speckle_has_mean_1_and_standard_deviation_strength(strength):
    x = np.full((50, 32, 32, 2), 0.5, "float32")
    noise = degraded("speckle", strength, x) / 0.5
    # The standard error of the mean of 102,400 values is 0.0031 at most.
    assert noise.mean() == pytest.approx(1, abs=0.015)
    assert noise.std() == pytest.approx(strength, rel=0.03)


def test_occlusion_blackens_a_rectangle_of_area_strength():
    x = np.ones((20, 32, 16, 1), "float32")
    black = degraded("occlusion", 0.25, x)[..., 0] == 0
    assert np.all(black.sum(axis=(1, 2)) == 16 * 8)
    assert np.all(black.any(axis=2).sum(axis=1) == 16)
    assert np.all(black.any(axis=1).sum(axis=1) == 8)
    # The place varies between images.
    assert len({tuple(np.argwhere(image)[0]) for image in black}) > 5


def test_a_larger_occlusion_covers_a_smaller_one():
    x = np.ones((50, 32, 32, 1), "float32")
    smaller, larger = (degraded("occlusion", s, x) == 0 for s in (0.3, 0.4))
    assert np.all(larger[smaller])


def test_color_loss_moves_channels_to_their_mean():
    x = np.array([0.0, 0.3, 0.9], "float32").reshape(1, 1, 1, 3)
    half = degradations.color_loss(x, 0.5).ravel()
    np.testing.assert_allclose(half, [0.2, 0.35, 0.65], rtol=1e-6)
    np.testing.assert_allclose(degradations.color_loss(x, 1), 0.4, rtol=1e-6)


def test_color_loss_of_gray_images_raises():
    with pytest.raises(ValueError, match=r"colors to lose.*\(8, 32, 32, 1\)"):
        degraded("color_loss", 0.5, images(channels=1))


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
@pytest.mark.parametrize("name", NAMES)
def test_strength_out_of_range_raises(name, strength):
    with pytest.raises(ValueError, match=f"between 0 and 1.*strength={strength}"):
        degraded(name, strength)


@pytest.mark.parametrize("name", NAMES)
def test_integer_images_raise(name):
    with pytest.raises(ValueError, match="images.dtype=uint8. Divide"):
        degraded(name, 0.5, (255 * images()).astype("uint8"))


@pytest.mark.parametrize("name", NAMES)
def test_single_image_raises(name):
    with pytest.raises(ValueError, match=r"images.shape=\(32, 32, 3\)"):
        degraded(name, 0.5, images()[0])


def test_unknown_name_raises_and_lists_the_known_ones():
    with pytest.raises(ValueError, match="no degradation 'fog'.*speckle"):
        degraded("fog", 0.5)
