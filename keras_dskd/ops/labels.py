"""Labels, in whichever form they come."""

from keras import ops

from keras_dskd.internal.types import Nested, Tensor


def class_numbers(labels: Nested, rank: int = 1) -> Tensor:
    """The number of the class of each sample.

    Args:
        labels: Class numbers of the given rank, the same with a last axis of length 1,
            or one number a class on a last axis (one-hot, smoothed), of which the
            largest counts.
        rank: Rank of the result: 1 for a class a sample.

    Returns:
        Tensor of that rank, int32.

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
    labels = ops.convert_to_tensor(labels)
    if len(labels.shape) == rank + 1:
        if labels.shape[-1] == 1:
            labels = ops.squeeze(labels, axis=-1)
        else:
            labels = ops.argmax(labels, axis=-1)
    if len(labels.shape) != rank:
        raise ValueError(
            f"Expected class numbers of rank {rank}, or as many numbers as classes on "
            f"one more axis. Received: labels.shape={tuple(labels.shape)}"
        )
    return ops.cast(labels, "int32")
