"""Make weak modalities from images, with an adjustable strength.

Each function takes float images `(n, height, width, channels)` with values in [0, 1]
and a strength in [0, 1], and returns float32 images of the same shape. Strength 0
changes nothing. Strength 1 removes almost everything that the function can remove.
Random numbers come from a `numpy.random.Generator`.
"""

import numpy as np


def resolution(images, strength):
    """Averages over cells. At strength 1, one cell covers the whole image.

    A side of `size` pixels is cut into `size^(1 - strength)` cells, rounded, so equal
    steps of strength divide the resolution by equal factors.
    """
    images = _checked(images, strength)
    for axis in (1, 2):
        size = images.shape[axis]
        cells = round(size ** (1 - strength))
        # Cells differ by one pixel if the side is not a multiple of their number.
        edges = np.linspace(0, size, cells + 1).round().astype(int)
        widths = np.diff(edges)
        sums = np.add.reduceat(images, edges[:-1], axis=axis)  # cells along the axis
        shape = [1] * images.ndim
        shape[axis] = cells
        images = (sums / widths.reshape(shape)).repeat(widths, axis=axis)
    return images.astype("float32")


def speckle(images, strength, rng):
    """Multiplies each value by gamma noise of mean 1 and this standard deviation.

    This is the speckle of coherent sensors such as radar. Strength 1 is a single look,
    and strength s is the mean of 1 / s² looks. Values are not clipped to 1, because
    that would darken the images.
    """
    images = _checked(images, strength)
    if strength == 0:
        return images
    looks = 1 / strength**2
    noise = rng.gamma(looks, 1 / looks, images.shape)
    return (images * noise).astype("float32")


def occlusion(images, strength, rng):
    """Blackens a rectangle of each image. The strength is its share of the area.

    The rectangle has the proportions of the image, rounded to whole pixels, and a
    random position inside it. With equal generators, a stronger occlusion covers
    everything that a weaker one covers.
    """
    images = _checked(images, strength)
    count, height, width, _ = images.shape
    inside = np.ones((count, height, width), bool)
    for axis, size in ((1, height), (2, width)):
        side = round(size * strength**0.5)
        first = np.floor(rng.random(count) * (size - side + 1))[:, None]
        pixels = np.arange(size)
        covered = (pixels >= first) & (pixels < first + side)  # (n, size)
        inside &= covered[:, :, None] if axis == 1 else covered[:, None, :]
    return images * ~inside[..., None]


def color_loss(images, strength):
    """Moves each pixel's channels towards their mean, which strength 1 leaves alone."""
    images = _checked(images, strength)
    if images.shape[-1] < 2:
        raise ValueError(
            "Only images of two channels or more have colors to lose. Received: "
            f"images.shape={images.shape}"
        )
    gray = images.mean(axis=-1, keepdims=True)
    return images + np.float32(strength) * (gray - images)


#: The names of all degradations.
DEGRADATIONS = {
    "resolution": resolution,
    "speckle": speckle,
    "occlusion": occlusion,
    "color_loss": color_loss,
}


def degrade(images, name, strength, rng):
    """Degrades images by name.

    Args:
        images: Float images `(n, height, width, channels)` in [0, 1].
        name: A key of `DEGRADATIONS`.
        strength: In [0, 1].
        rng: A `numpy.random.Generator`; only random degradations use it.

    Returns:
        Float32 images of the same shape.

    Raises:
        ValueError: If the degradation is unknown, the strength is out of range, or the
            images do not have this format.
    """
    if name not in DEGRADATIONS:
        raise ValueError(
            f"There is no degradation {name!r}. There are: {', '.join(DEGRADATIONS)}"
        )
    if name in ("speckle", "occlusion"):
        return DEGRADATIONS[name](images, strength, rng)
    return DEGRADATIONS[name](images, strength)


def _checked(images, strength):
    """The images as float32, after a check of the images and the strength."""
    images = np.asarray(images)
    if images.ndim != 4:
        raise ValueError(
            "Expected images of shape (n, height, width, channels). Received: "
            f"images.shape={images.shape}"
        )
    if not np.issubdtype(images.dtype, np.floating):
        raise ValueError(
            "Expected float images with values in [0, 1]. Received: "
            f"images.dtype={images.dtype}. Divide whole numbers by 255."
        )
    if not 0 <= strength <= 1:
        raise ValueError(
            f"`strength` must be between 0 and 1. Received: strength={strength}"
        )
    return images.astype("float32")
