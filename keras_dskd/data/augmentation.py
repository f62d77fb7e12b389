"""Augmentation of pairs: one random draw moves the images of all modalities."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
from numpy.typing import NDArray

from keras_dskd.data.arrays import dense
from keras_dskd.internal.keras_private import keras_cv_generator
from keras_dskd.internal.types import Nested

#: What Keras's layers ask of the sizes of the modalities, for a draw to mean the same.
_ANY_SIZE = ("RandomFlip", "RandomPerspective", "RandomTranslation", "RandomZoom")
_ONE_PROPORTION = ("RandomRotation", "RandomShear")  # Angles are those of the pixels.
_ONE_SIZE = ("RandomCrop",)  # It counts in pixels.
#: KerasCV's layers whose draws come from their generator alone.
_OF_KERAS_CV = (
    "RandomCrop",
    "RandomFlip",
    "RandomRotation",
    "RandomTranslation",
    "RandomZoom",
)


#: What moves images in step, the layer that draws, and what it asks of their sizes.
_Move: TypeAlias = tuple[
    Callable[..., list[NDArray[Any]]], keras.layers.Layer, tuple[str, ...]
]


class AugmentedPairs(keras.utils.PyDataset):
    """A data set of pairs whose images are moved at random, in all modalities alike.

    A flip, a shift or a turn of the teacher's image is that of the student's, also
    where they differ in size, channels and type. Labels stay as they are. Each batch of
    each epoch has draws of its own, which the seed alone decides: the layers' own seeds
    and generators are neither read nor changed.

    Args:
        data: The `keras.utils.PyDataset` of batches that `fit` takes, such as
            `CachedDataset` or `MixedPairs`. Of its `x`, arrays of shape `(n, height,
            width, channels)` are images, and what has one number or one row a sample
            stays as it is.
        layers: One layer or a list, applied in this order. Of `keras.layers`:
            `RandomFlip`, `RandomTranslation`, `RandomZoom`, `RandomPerspective`;
            `RandomRotation` and `RandomShear`, for images of the same proportions;
            `RandomCrop`, for images of the same size. Of `keras_cv.layers`, for images
            of the same size: `RandomFlip`, `RandomTranslation`, `RandomZoom`,
            `RandomRotation`, `RandomCrop`.
        seed: Makes the draws those of every run with this seed. Defaults to one drawn
            from NumPy's global generator, which `keras.utils.set_random_seed` sets.
        **kwargs: `workers` and `max_queue_size` of `keras.utils.PyDataset`. Workers are
            threads.

    Attributes:
        epoch: How often all batches were read so far; it and the seed make the draws.
            Assign it to go on from there, as that of `CachedDataset`.

    Images come out as float arrays: floats keep their type, whole numbers become
    float32 and are not scaled. Layers run on the CPU.

    A shift or a turn by parts of a pixel takes means of neighbours. That smooths the
    noise of a weak modality while training, and not at run time: layers with
    `interpolation="nearest"` move the pixels as they are.

    Raises:
        ValueError: If a layer cannot be shared, the modalities' sizes do not suit it,
            or a batch holds no images, cached features or labels by pixel.

    Example:
    ```python
    data = keras_dskd.CachedDataset(pairs, labels, batch_size=64)
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
        super().__init__(**kwargs)
        if not isinstance(data, keras.utils.PyDataset):
            raise ValueError(
                "`data` must be a keras.utils.PyDataset. Received: "
                f"{type(data).__name__}. Arrays become one by "
                "keras_dskd.CachedDataset(x, y, batch_size=...)."
            )
        if self.use_multiprocessing:
            raise ValueError(
                "Layers run on the backend, which does not survive a fork: leave out "
                "`use_multiprocessing`. Its `workers` are threads."
            )
        layers = list(layers) if isinstance(layers, (list, tuple)) else [layers]
        self._moves = [_move_of(layer) for layer in layers]
        if self.workers > 1 and _by_keras_cv in [move for move, *_ in self._moves]:
            raise ValueError(
                "KerasCV's layers are not made for threads: take keras.layers's, or "
                f"leave out `workers`. Received: workers={self.workers}"
            )
        self.data = data
        self.seed = np.random.randint(2**31) if seed is None else seed
        self._epoch: int = getattr(data, "epoch", 0)
        self._read: set[int] = set()
        self[0]  # What is wrong with the data shall not wait for `fit`.

    @property
    def epoch(self) -> int:
        """How often all batches were read. Assign it to go on from there."""
        return self._epoch

    @epoch.setter
    def epoch(self, number: int) -> None:
        self._epoch = number
        self._read = set()
        if hasattr(self.data, "epoch"):
            self.data.epoch = number

    @property
    def num_batches(self) -> int | None:
        """Number of batches of the data, or `None` if they are infinite."""
        return self.data.num_batches

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Nested, ...]:
        self._read.add(index)
        batch = self.data[index]
        x, *rest = batch if isinstance(batch, (list, tuple)) else (batch,)
        _check_parts(x, rest)
        arrays = [dense(array) for array in keras.tree.flatten(x)]
        places = _places_of_images(arrays)
        images = [arrays[place] for place in places]
        rng = np.random.default_rng([self.seed, self.epoch, index])
        with keras.device("cpu"):
            for move, layer, sizes in self._moves:
                _check_sizes(layer, sizes, images)
                images = move(layer, images, int(rng.integers(2**31)))
        for place, image in zip(places, images, strict=True):
            dtype = arrays[place].dtype
            is_float = np.issubdtype(dtype, np.floating)
            arrays[place] = image.astype(dtype if is_float else "float32", copy=False)
        return (keras.tree.pack_sequence_as(x, arrays), *rest)

    def on_epoch_begin(self) -> None:
        """Tells the data that an epoch begins."""
        self.data.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """Goes on to the next epoch's draws, if all batches of this one were read."""
        self.data.on_epoch_end()
        # Keras also ends an epoch before the first, when a batch or two were read.
        if len(self._read) == self.num_batches:
            self._epoch += 1
            self._read = set()


def _by_keras(
    layer: keras.layers.Layer, images: list[NDArray[Any]], seed: int
) -> list[NDArray[Any]]:
    moved = []
    for image in images:
        image = keras.ops.convert_to_tensor(image)
        # Equal generators draw alike, whatever the size and the channels.
        generator = keras.random.SeedGenerator(seed, name="draw")
        draw = layer.get_random_transformation(image, training=True, seed=generator)
        moved.append(dense(layer.transform_images(image, draw, training=True)))
    return moved


def _by_keras_cv(
    layer: keras.layers.Layer, images: list[NDArray[Any]], seed: int
) -> list[NDArray[Any]]:
    generator = keras_cv_generator(layer)
    state = generator.state.read_value()  # It may be TensorFlow's global generator.
    generator.reset_from_seed(seed)
    try:
        moved = layer(np.concatenate([image.astype("float32") for image in images], -1))
    finally:
        generator.state.assign(state)
    ends = np.cumsum([image.shape[-1] for image in images])
    return np.split(dense(moved), ends[:-1], axis=-1)


def _move_of(layer: keras.layers.Layer) -> _Move:
    """How a layer is applied, the layer, and which sizes one draw suits."""
    for sizes in (_ANY_SIZE, _ONE_PROPORTION, _ONE_SIZE):
        if isinstance(layer, tuple(getattr(keras.layers, name) for name in sizes)):
            return _by_keras, layer, sizes
    for cls in type(layer).__mro__:
        if cls.__module__.startswith("keras_cv.") and cls.__name__ in _OF_KERAS_CV:
            return _by_keras_cv, layer, _ONE_SIZE
    raise ValueError(
        f"{type(layer).__name__} cannot be shared by modalities. Layers that can: of "
        f"keras.layers {', '.join(sorted(_ANY_SIZE + _ONE_PROPORTION + _ONE_SIZE))}; "
        f"of keras_cv.layers {', '.join(_OF_KERAS_CV)}. What changes colours belongs "
        "to one modality: apply it to that one's arrays, or at the student's input."
    )


def _check_parts(x: Nested, rest: list[Nested]) -> None:
    if isinstance(x, dict) and "teacher_features" in x:
        raise ValueError(
            'x["teacher_features"] are those of images that were not moved. Give the '
            'teacher\'s inputs as x["teacher"].'
        )
    for labels in keras.tree.flatten(rest[:1]):
        if len(getattr(labels, "shape", ())) > 2:
            raise ValueError(
                "Labels of positions would have to move with the images, and do not. "
                f"Received: y.shape={tuple(labels.shape)}"
            )


def _places_of_images(arrays: list[NDArray[Any]]) -> list[int]:
    ranks = [array.ndim for array in arrays]
    if 4 not in ranks or not set(ranks) <= {1, 2, 4}:
        raise ValueError(
            "Expected images of shape (n, height, width, channels), and beside them "
            "nothing but numbers or rows of the samples. Received: x of shapes "
            f"{[array.shape for array in arrays]}"
        )
    return [place for place, rank in enumerate(ranks) if rank == 4]


def _check_sizes(
    layer: keras.layers.Layer, sizes: tuple[str, ...], images: list[NDArray[Any]]
) -> None:
    """Raises `ValueError` where one draw would mean different things."""
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
        f"{type(layer).__module__.split('.')[0]}'s {type(layer).__name__} moves images "
        f"alike that have {needed}. Received: (height, width) of {shapes}. Of other "
        f"sizes keras.layers has {', '.join(_ANY_SIZE)}."
    )
