"""The samples that `check_pairs` compares, and their classes."""

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_dskd.data import pairs
from keras_dskd.data.arrays import row_count, sliceable
from keras_dskd.internal.types import Nested
from keras_dskd.ops.labels import remove_class_axis


def classes_of(y: NDArray[Any]) -> NDArray[Any]:
    """The class of each sample.

    Raises:
        ValueError: If the labels are not class indices or one-hot.
    """
    classes = remove_class_axis(y)
    if y.ndim == 2 and y.shape[1] > 1 and not _is_one_hot(y):
        raise ValueError(
            "`y` must be class indices or one-hot labels. Received: rows of "
            f"y.shape={y.shape} with other than one 1. Leave out `y` if samples can "
            "have several labels."
        )
    if classes.dtype.kind == "f" and not np.array_equal(classes, np.round(classes)):
        raise ValueError(
            "`y` must be class indices or one-hot labels. Received: numbers with "
            f"fractions, of dtype {classes.dtype}. Leave out `y` in a regression."
        )
    return classes


def _is_one_hot(y: NDArray[Any]) -> bool:
    return bool(np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all())


def samples_of(pair: pairs.Pair, y: Nested) -> list[Any]:
    """Arrays of both modalities and labels, without masked-out samples."""
    if pair.teacher is None:
        raise ValueError(
            'Expected x={"teacher": ..., "student": ...}. Received: no x["teacher"]'
        )
    labels = [] if y is None else [np.asarray(sliceable(y))]
    arrays = keras.tree.map_structure(sliceable, [pair.teacher, pair.student, *labels])
    counts = [row_count(array) for array in keras.tree.flatten(arrays)]
    if None in counts:
        raise ValueError(
            "Expected arrays with one row per sample. Received: "
            f"{[type(array).__name__ for array in keras.tree.flatten(arrays)]}"
        )
    given = [pair.teacher_mask, None if y is None else pair.label_mask]
    masks = [np.reshape(sliceable(mask), -1) for mask in given if mask is not None]
    counts += [len(mask) for mask in masks]
    if len(set(counts)) > 1:
        raise ValueError(
            "Both modalities, labels and masks must have the same number of samples. "
            f"Received: {counts}"
        )
    if masks:
        valid = np.flatnonzero(np.all(masks, axis=0))
        arrays = keras.tree.map_structure(lambda array: array[valid], arrays)
        counts = [len(valid)]
    if (counts[0] or 0) < 8:
        raise ValueError(f"At least 8 pairs are needed. Received: {counts[0]}")
    return arrays
