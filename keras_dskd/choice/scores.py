"""One number for each validation row: how well a student predicts it."""

from collections.abc import Callable
from typing import Any, TypeAlias

import keras
import numpy as np
from numpy.typing import NDArray

from keras_dskd.distiller.distiller import Distiller
from keras_dskd.losses import BinarySoftTargets, RegressionTargets, SoftTargets
from keras_dskd.ops.labels import remove_class_axis

#: From labels and predictions to one number per row; the higher, the better.
Score: TypeAlias = Callable[[Any, Any], NDArray[Any]]


def default_score(distiller: Distiller) -> Score:
    """The score of the distiller's task.

    Raises:
        ValueError: If it has no loss of outputs, or several of them.
    """
    outputs = (SoftTargets, BinarySoftTargets, RegressionTargets)
    losses = [
        loss for loss in distiller.distillation_losses if isinstance(loss, outputs)
    ]
    if len(losses) != 1:
        raise ValueError(
            "Pass `score`: only a distiller with one loss of outputs has a default. "
            f"Received: {len(losses)} losses of outputs in {distiller.name!r}"
        )
    loss = losses[0]
    if isinstance(loss, SoftTargets):
        return lambda y, predictions: _is_class(y, predictions, loss.axis)
    if isinstance(loss, BinarySoftTargets):
        threshold = 0.0 if loss.student_from_logits else 0.5
        return lambda y, predictions: _has_labels(y, predictions, threshold)
    return lambda y, predictions: -((_like(y, predictions) - predictions) ** 2)


def row_scores(score: Score, y: Any, predictions: Any) -> NDArray[Any]:
    """The scores of a student's predictions, an array `(n,)`.

    Raises:
        ValueError: If they are not one finite number per row.
    """
    scores = np.asarray(score(y, predictions), "float64")
    rows = len(keras.tree.flatten(predictions)[0])
    if scores.ndim < 1 or len(scores) != rows:
        raise ValueError(
            f"`score` must return one number for each of {rows} rows. Received: an "
            f"array of shape {scores.shape}"
        )
    scores = scores.reshape(rows, -1).mean(axis=1)
    if not np.isfinite(scores).all():
        raise ValueError(
            f"Scores must be finite. Received: {np.sum(~np.isfinite(scores))} of "
            f"{rows} rows with NaN or infinity."
        )
    return scores


def _is_class(y: Any, predictions: NDArray[Any], axis: int) -> NDArray[Any]:
    predictions = np.moveaxis(predictions, axis, -1)
    classes = predictions.shape[-1]
    y = np.asarray(y)
    if y.ndim == predictions.ndim and y.shape[-1] > 1:
        y = np.moveaxis(y, axis, -1)
        if y.shape[-1] != classes:
            raise ValueError(
                f"One-hot labels must have {classes} classes, as the predictions. "
                f"Received: {y.shape[-1]}"
            )
    labels = remove_class_axis(y, predictions.ndim - 1)
    if not np.isin(labels, np.arange(classes)).all():
        raise ValueError(
            f"Labels must be classes from 0 to {classes - 1}. Received: labels from "
            f"{labels.min()} to {labels.max()}. If some mark entries to leave out, "
            "pass a `score` that leaves them out."
        )
    # A student that diverged predicts NaN, which is never right.
    return (labels == predictions.argmax(axis=-1)) & ~np.isnan(predictions).any(axis=-1)


def _has_labels(y: Any, predictions: NDArray[Any], threshold: float) -> NDArray[Any]:
    is_right = (_like(y, predictions) > 0.5) == (predictions > threshold)
    return is_right & ~np.isnan(predictions)


def _like(y: Any, predictions: NDArray[Any]) -> NDArray[Any]:
    """Labels of the predictions' shape, apart from a last axis of length 1."""
    y = np.asarray(y, "float64")
    if y.size != predictions.size or y.shape[0] != predictions.shape[0]:
        raise ValueError(
            "Labels and predictions must have the same shape. Received: "
            f"y.shape={y.shape}, predictions.shape={predictions.shape}"
        )
    return y.reshape(predictions.shape)
