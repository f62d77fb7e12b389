"""Class indices from labels of any form."""

from typing import Any

import numpy as np
from keras import ops

from keras_dskd.internal.types import Nested, Tensor


def class_indices(labels: Nested, rank: int = 1) -> Tensor:
    """Convert labels to the index of each sample's class.

    Args:
        labels: One of three forms: class indices with `rank` axes; the same with a last
            axis of length 1; or one number per class on a last axis (one-hot or
            smoothed), of which the largest counts.
        rank: Number of axes of the result. 1 means one class per sample.

    Returns:
        Tensor with `rank` axes, int32.

    Raises:
        ValueError: If there are no labels, several arrays of them, or the rank differs.
    """
    check_one_array(labels)
    labels = remove_class_axis(ops.convert_to_tensor(labels), rank)
    return ops.cast(labels, "int32")


def check_one_array(labels: Nested) -> None:
    """Raise `ValueError` if labels are missing, or are several arrays."""
    if labels is None:
        raise ValueError(
            "Labels are missing: labels=None. Pass `y` to `fit`, or `labels` to the "
            "loss."
        )
    if isinstance(labels, dict) or (
        isinstance(labels, (list, tuple))
        and any(getattr(label, "shape", ()) for label in labels)
    ):
        raise ValueError(
            "Expected one array of labels. Received: a "
            f"{type(labels).__name__} of {len(labels)}"
        )


def check_ignore_class(ignore_class: object) -> None:
    """Raise `ValueError` unless `ignore_class` is an integer or `None`."""
    is_integer = isinstance(ignore_class, int) and not isinstance(ignore_class, bool)
    if ignore_class is not None and not is_integer:
        raise ValueError(
            "`ignore_class` must be an integer, the label to leave out, or None. "
            f"Received: ignore_class={ignore_class!r}"
        )


def is_class(indices: Tensor, classes: int) -> Tensor:
    """Compare class indices `(...)` with each class: a bool tensor `(..., classes)`."""
    indices = ops.expand_dims(ops.cast(indices, "int32"), -1)
    return ops.equal(indices, ops.arange(classes, dtype="int32"))


def remove_class_axis(labels: Any, rank: int = 1) -> Any:
    """Reduce labels of any form to one per sample.

    Args:
        labels: Tensor or NumPy array in one of the forms of `class_indices`. Labels
            without an axis of classes may be of any dtype.
        rank: Number of axes of the result.

    Returns:
        Tensor or NumPy array, like `labels`, with `rank` axes.

    Raises:
        ValueError: If the rank differs.
    """
    if len(labels.shape) == rank + 1:
        if labels.shape[-1] == 1:
            return labels[..., 0]
        return (np if isinstance(labels, np.ndarray) else ops).argmax(labels, axis=-1)
    if len(labels.shape) != rank:
        raise ValueError(
            f"Expected class indices of rank {rank}, or one-hot labels of rank "
            f"{rank + 1}. Received: labels.shape={tuple(labels.shape)}"
        )
    return labels
