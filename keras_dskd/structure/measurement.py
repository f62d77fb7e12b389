"""Measure the structure of a model's features over data."""

from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np
from keras import ops as keras_ops
from numpy.typing import NDArray

from keras_dskd import ops
from keras_dskd.data import arrays, pairs
from keras_dskd.features.feature_model import FeatureModel
from keras_dskd.features.taps import OUTPUT
from keras_dskd.internal.types import Nested, Tensor
from keras_dskd.ops.labels import remove_class_axis
from keras_dskd.structure.report import FeatureStructure, StructureReport

#: A channel is dead if its standard deviation is at most this share of the largest one.
DEAD_SHARE = 1e-6
#: The name of the classes that the output says. No layer can have it.
_CLASSES = "/classes"


def structure_report(
    model: keras.Model,
    x: Nested,
    layers: str | Sequence[str],
    y: Nested = None,
    name: str | None = None,
    batch_size: int = 128,
    max_samples: int = 2048,
    verbose: int | Literal["auto"] = "auto",
) -> StructureReport:
    """Measure the structure of a model's features over data.

    The structure is how much the channels correlate, how evenly the features spread
    over the unit sphere, and how many dimensions they use. See `FeatureStructure`.

    Args:
        model: A built `keras.Model`. It runs in inference mode.
        x: Input of the model: arrays with at least two samples.
        layers: Name or names of the layers to measure. See
            `keras_dskd.features.taps.Tap`.
        y: Labels for the accuracy of the model's final output: class indices `(n,)`, or
            one-hot `(n, classes)`. For a class at each position, as in segmentation,
            `(n, ...)` or `(n, ..., classes)`; the accuracy is that of all positions.
            Defaults to `None`: no accuracy is computed.
        name: Name of the report. Defaults to the model's name.
        batch_size: Number of samples per batch.
        max_samples: Measure the structure on at most this many samples, evenly spaced
            over the data, because uniformity compares all pairs of samples. The
            accuracy uses all samples.
        verbose: As in `keras.Model.predict`: 0 prints nothing, 1 or `"auto"` shows a
            progress bar, 2 prints one line at the end.

    Returns:
        A `StructureReport`: `.summary()` prints a table, `.plot()` draws a figure, and
        `.to_html()` writes an HTML page with both.

    Raises:
        ValueError: If a layer is not found, the input does not fit the model, the
            labels do not fit the output, or features are not finite.
    """
    layers = [layers] if isinstance(layers, str) else list(layers)
    if not layers:
        raise ValueError("`layers` must name at least one layer. Received: layers=[]")
    pairs.check_fits(model, x)
    read = [*layers, OUTPUT] if y is not None else layers
    features = ClassReader(model, read, pooled=layers).predict(
        x, batch_size=batch_size, verbose=verbose
    )
    picked = arrays.evenly_spaced_rows(len(features[layers[0]]), max_samples)
    accuracy = labels = None
    if y is not None:
        labels = _class_indices(y, features[_CLASSES])
        accuracy = float(np.mean(features[_CLASSES] == labels))
        labels = labels[picked] if labels.ndim == 1 else None
    return StructureReport(
        name=name or model.name,
        layers={layer: measure(features[layer][picked]) for layer in layers},
        accuracy=accuracy,
        labels=labels,
        samples=len(features[layers[0]]),
    )


def measure(rows: Any) -> FeatureStructure:
    """Measure the structure of rows `(n, c)`."""
    rows = np.asarray(rows, "float32")
    if not np.isfinite(rows).all():
        raise ValueError(
            "Features must be finite. Received "
            f"{np.sum(~np.isfinite(rows))} NaN or infinite values of {rows.size}."
        )
    spread = rows.std(axis=0)
    # A larger epsilon would shrink the correlation of channels with a small variance.
    correlation = _number(ops.channel_correlation(rows, epsilon=1e-12))
    different = ~np.eye(len(correlation), dtype=bool)
    return FeatureStructure(
        rows=rows,
        correlation=correlation,
        eigenvalues=np.linalg.eigvalsh(correlation.astype("float64"))[::-1],
        mean_correlation=float(np.abs(correlation)[different].mean())
        if len(correlation) > 1
        else 0.0,
        uniformity=float(_number(ops.spatial_uniformity(rows))),
        effective_rank=float(_number(ops.effective_rank(rows))),
        dead_channels=int(np.sum(spread <= DEAD_SHARE * spread.max())),
    )


class ClassReader(FeatureModel):
    """Reads which class an output says: outputs of all pixels may not fit in memory."""

    def call(self, inputs: Nested) -> dict[str, Nested]:
        features = super().call(inputs)
        if OUTPUT in self.names:
            output: Any = features[OUTPUT]
            if OUTPUT not in self.pooled:
                del features[OUTPUT]
            if len(getattr(output, "shape", ())) > 1 and output.shape[-1] != 1:
                output = keras_ops.argmax(output, axis=-1)
            features[_CLASSES] = output
        return features


def _class_indices(y: Any, predicted: Any) -> NDArray[Any]:
    """The labels, in the form of the classes that `ClassReader` read."""
    if not isinstance(predicted, np.ndarray):
        raise ValueError(
            "Accuracy needs one output. Received: a model with several outputs. Leave "
            "out `y`."
        )
    if not np.issubdtype(predicted.dtype, np.integer):
        raise ValueError(
            "Accuracy needs one output per class, but the output has one column. "
            f"Received: an output of shape {predicted.shape}. Leave out `y`."
        )
    y = remove_class_axis(np.asarray(y), predicted.ndim)
    if y.shape != predicted.shape:
        raise ValueError(
            "Accuracy needs one label per prediction. Received: labels of shape "
            f"{y.shape} and predicted classes of shape {predicted.shape}"
        )
    if not np.array_equal(y, np.round(y)):
        raise ValueError("Labels must be class indices. Received fractions in `y`.")
    return y.astype(int)


def _number(tensor: Tensor) -> NDArray[Any]:
    return keras_ops.convert_to_numpy(tensor)
