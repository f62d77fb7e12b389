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
    labels = remove_class_axis(ops.convert_to_tensor(labels), rank)
    return ops.cast(labels, "int32")


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
