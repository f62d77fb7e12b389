"""Augmentation of pairs: one random draw moves the images of all modalities."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
from numpy.typing import NDArray

from keras_dskd.data.arrays import dense
from keras_dskd.data.epochs import TransformedDataset
from keras_dskd.internal.keras_private import keras_cv_generator
from keras_dskd.internal.types import Nested

#: Keras's layers, by what they require of the images' sizes so that one draw has the
#: same meaning for all modalities.
_ANY_SIZE = ("RandomFlip", "RandomPerspective", "RandomTranslation", "RandomZoom")
_ONE_PROPORTION = ("RandomRotation", "RandomShear")  # Angles are those of the pixels.
_ONE_SIZE = ("RandomCrop",)  # It counts in pixels.
#: KerasCV's layers that draw from their generator only.
_KERAS_CV = (
    "RandomCrop",
    "RandomFlip",
    "RandomRotation",
    "RandomTranslation",
    "RandomZoom",
)


#: The function that applies a layer, the layer, and the group above that it is in.
_Move: TypeAlias = tuple[
    Callable[..., list[NDArray[Any]]], keras.layers.Layer, tuple[str, ...]
]


class AugmentedPairs(TransformedDataset):
    """Augments the images of a data set of pairs, all modalities by the same draw.

    If the teacher's image is flipped, shifted or rotated, so is the student's, even if
    they differ in size, channels and dtype. Labels stay as they are. Each batch of each
    epoch has its own draws, which depend on `seed` only: the layers' own seeds and
    generators are neither read nor changed.

    Args:
        data: The `keras.utils.PyDataset` of batches that `fit` takes, such as
            `ArrayDataset` or `MixedPairs`. In its `x`, arrays of shape `(n, height,
            width, channels)` are images; arrays with one number or one row per sample
            stay as they are.
        layers: One layer or a list, applied in this order. Of `keras.layers`:
            `RandomFlip`, `RandomTranslation`, `RandomZoom`, `RandomPerspective`;
            `RandomRotation` and `RandomShear` for images of the same proportions;
            `RandomCrop` for images of the same size. Of `keras_cv.layers`, for images
            of the same size: `RandomFlip`, `RandomTranslation`, `RandomZoom`,
            `RandomRotation`, `RandomCrop`.
        seed: Integer seed of the draws. Defaults to one drawn from NumPy's global
            generator, which `keras.utils.set_random_seed` seeds.
        **kwargs: `workers` (threads) and `max_queue_size` of `keras.utils.PyDataset`.

    Attributes:
        epoch: How many times all batches were read. The seed and this number determine
            the draws. Assigning it also assigns that of `data`.

    Images become float arrays: floats keep their dtype, integers become float32 and are
    not scaled. Layers run on the CPU.

    Bilinear interpolation smooths the noise of a weak modality during training, but not
    at test time. For a noisy modality pass `interpolation="nearest"` to the layers.

    Raises:
        ValueError: If a layer cannot be shared, the images' sizes do not suit it, or a
            batch contains no images, cached features, or labels per pixel.

    Example:
    ```python
    data = keras_dskd.ArrayDataset(pairs, labels, batch_size=64)
    layers = [keras.layers.RandomFlip(), keras.layers.RandomTranslation(0.1, 0.1)]
    distiller.fit(keras_dskd.AugmentedPairs(data, layers), epochs=60, shuffle=False)
    ```
    """

    def __init__(
        self,
        data: keras.utils.PyDataset,
        layers: keras.layers.Layer | Sequence[keras.layers.Layer],
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(data, seed, **kwargs)
        if self.use_multiprocessing:
            raise ValueError(
                "Layers run on the backend, which does not survive a fork. Leave out "
                "`use_multiprocessing`: `workers` are threads then."
            )
        layers = list(layers) if isinstance(layers, (list, tuple)) else [layers]
        self._moves = [_move_of(layer) for layer in layers]
        if self.workers > 1 and _by_keras_cv in [move for move, *_ in self._moves]:
            raise ValueError(
                "KerasCV's layers are not made for threads. Use those of keras.layers, "
                f"or leave out `workers`. Received: workers={self.workers}"
            )
        self._check_first_batch()

    def _transform(
        self, x: Nested, rest: list[Nested], rng: np.random.Generator
    ) -> tuple[Nested, ...]:
        _check_parts(x, rest)
        arrays = [dense(array) for array in keras.tree.flatten(x)]
        positions = _positions_of_images(arrays)
        images = [arrays[position] for position in positions]
        with keras.device("cpu"):
            for move, layer, sizes in self._moves:
                _check_sizes(layer, sizes, images)
                images = move(layer, images, int(rng.integers(2**31)))
        for position, image in zip(positions, images, strict=True):
            dtype = arrays[position].dtype
            is_float = np.issubdtype(dtype, np.floating)
            image = image.astype(dtype if is_float else "float32", copy=False)
            arrays[position] = image
        return (keras.tree.pack_sequence_as(x, arrays), *rest)


def _by_keras(
    layer: keras.layers.Layer, images: list[NDArray[Any]], seed: int
) -> list[NDArray[Any]]:
    moved = []
    for image in images:
        image = keras.ops.convert_to_tensor(image)
        # Generators of one seed draw the same, whatever the size and the channels.
        generator = keras.random.SeedGenerator(seed, name="draw")
        draw = layer.get_random_transformation(image, training=True, seed=generator)
        moved.append(dense(layer.transform_images(image, draw, training=True)))
    return moved


def _by_keras_cv(
    layer: keras.layers.Layer, images: list[NDArray[Any]], seed: int
) -> list[NDArray[Any]]:
    generator = keras_cv_generator(layer)
    state = generator.state.read_value()  # It may be TensorFlow's global one.
    generator.reset_from_seed(seed)
    try:
        moved = layer(np.concatenate([image.astype("float32") for image in images], -1))
    finally:
        generator.state.assign(state)
    ends = np.cumsum([image.shape[-1] for image in images])
    return np.split(dense(moved), ends[:-1], axis=-1)


def _move_of(layer: keras.layers.Layer) -> _Move:
    """Finds how to apply a layer, and what it requires of the images' sizes."""
    for sizes in (_ANY_SIZE, _ONE_PROPORTION, _ONE_SIZE):
        if isinstance(layer, tuple(getattr(keras.layers, name) for name in sizes)):
            return _by_keras, layer, sizes
    for cls in type(layer).__mro__:
        if cls.__module__.startswith("keras_cv.") and cls.__name__ in _KERAS_CV:
            return _by_keras_cv, layer, _ONE_SIZE
    raise ValueError(
        f"{type(layer).__name__} cannot be shared by modalities. Layers that can: of "
        f"keras.layers {', '.join(sorted(_ANY_SIZE + _ONE_PROPORTION + _ONE_SIZE))}; "
        f"of keras_cv.layers {', '.join(_KERAS_CV)}. A change of colors belongs to one "
        "modality: apply it to the arrays of that one, or at the student's input."
    )


def _check_parts(x: Nested, rest: list[Nested]) -> None:
    if isinstance(x, dict) and "teacher_features" in x:
        raise ValueError(
            'x["teacher_features"] belong to images that were not moved. Pass the '
            'teacher\'s inputs as x["teacher"].'
        )
    for labels in keras.tree.flatten(rest[:1]):
        if len(getattr(labels, "shape", ())) > 2:
            raise ValueError(
                "Labels of positions would have to move with the images, but do not. "
                f"Received: y.shape={tuple(labels.shape)}. Flip or crop images and "
                "labels together in a keras.utils.PyDataset of your own."
            )


def _positions_of_images(arrays: list[NDArray[Any]]) -> list[int]:
    ranks = [array.ndim for array in arrays]
    if 4 not in ranks or not set(ranks) <= {1, 2, 4}:
        raise ValueError(
            "Expected images of shape (n, height, width, channels), and besides them "
            "only one number or one row per sample. Received: x of shapes "
            f"{[array.shape for array in arrays]}"
        )
    return [position for position, rank in enumerate(ranks) if rank == 4]


def _check_sizes(
    layer: keras.layers.Layer, sizes: tuple[str, ...], images: list[NDArray[Any]]
) -> None:
    """Raises `ValueError` if one draw would mean different things for the images."""
    first = getattr(layer, "data_format", None) == "channels_first"
    shapes = [image.shape[2:] if first else image.shape[1:3] for image in images]
    height, width = shapes[0]
    if sizes is _ONE_SIZE and len(set(shapes)) > 1:
        needed = "one size"
    elif sizes is _ONE_PROPORTION and any(h * width != height * w for h, w in shapes):
        needed = "the same proportions"
    else:
        return
    raise ValueError(
        f"{type(layer).__module__.split('.')[0]}'s {type(layer).__name__} needs images "
        f"that have {needed}. Received: (height, width) of {shapes}. Layers of "
        f"keras.layers for any sizes: {', '.join(_ANY_SIZE)}."
    )
