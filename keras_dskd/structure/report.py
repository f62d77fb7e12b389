"""Measure the dimensional structure of a model's features."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np
from keras import ops as keras_ops
from numpy.typing import NDArray

from keras_dskd import ops
from keras_dskd.data import arrays, pairs
from keras_dskd.features.feature_model import FeatureModel
from keras_dskd.features.taps import OUTPUT
from keras_dskd.internal.types import FilePath, Nested, Tensor
from keras_dskd.structure.table import structure_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: A channel that varies less than this share of the liveliest one is dead.
DEAD_SHARE = 1e-6


@dataclass(frozen=True, repr=False)
class FeatureStructure:
    """Structure of one layer's features over a data set.

    Attributes:
        rows: `(n, c)`, one row a sample, pooled over positions.
        correlation: `(c, c)`, Pearson correlation between channels; 0 for a dead one.
        eigenvalues: `(c,)`, of `correlation`, largest first.
        mean_correlation: Mean of |correlation| over pairs of different channels.
        uniformity: `spatial_uniformity` at temperature 2; lower is more uniform.
        effective_rank: RankMe of the rows, between 1 and min(n, c).
        dead_channels: Number of channels that do not vary over the data.
    """

    rows: NDArray[Any]
    correlation: NDArray[Any]
    eigenvalues: NDArray[Any]
    mean_correlation: float
    uniformity: float
    effective_rank: float
    dead_channels: int

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.rows.shape[1]

    def __repr__(self) -> str:
        return (
            f"<FeatureStructure of {len(self.rows)} samples, {self.channels} channels: "
            f"mean_correlation={self.mean_correlation:.3f}, "
            f"uniformity={self.uniformity:.3f}, "
            f"effective_rank={self.effective_rank:.1f}, "
            f"dead_channels={self.dead_channels}>"
        )


@dataclass(frozen=True, repr=False)
class StructureReport:
    """Structure of a model's features; see `structure_report`.

    Attributes:
        name: What the report is called in tables and figures.
        layers: Dict of layer name -> `FeatureStructure`.
        accuracy: Share of samples classified right, or `None` without labels.
        labels: `(n,)` class of each sample that structure was measured on, or `None`.
        samples: Number of samples in the data, all of which count for the accuracy.
    """

    name: str
    layers: dict[str, FeatureStructure]
    accuracy: float | None
    labels: NDArray[Any] | None
    samples: int

    def __repr__(self) -> str:
        return structure_table([self])

    def summary(
        self, *others: "StructureReport", print_fn: Callable[[str], Any] = print
    ) -> None:
        """Prints a table, one line a layer; `others` are reports to list below."""
        print_fn(structure_table([self, *others]))

    def plot(
        self, *others: "StructureReport", path: FilePath | None = None
    ) -> "Figure":
        """Draws this report, and others beside it, with matplotlib.

        Args:
            *others: Further reports, of the same number of layers.
            path: File to save the figure to.

        Returns:
            A `matplotlib.figure.Figure`.
        """
        from keras_dskd.structure import figures

        return figures.saved(figures.plot_structure([self, *others]), path)

    def plot_correlation(
        self, after: "StructureReport", path: FilePath | None = None
    ) -> "Figure":
        """Draws correlations between channels before (this report) and after.

        A row a layer: both matrices of |correlation| under one colour bar, and how
        their values off the diagonal are distributed, with the difference of means.

        Args:
            after: Another report, of the same number of layers.
            path: File to save the figure to.

        Returns:
            A `matplotlib.figure.Figure`.
        """
        from keras_dskd.structure import figures

        return figures.saved(figures.plot_correlation(self, after), path)

    def to_html(
        self, path: FilePath, *others: "StructureReport", title: str | None = None
    ) -> None:
        """Writes this report, and others beside it, as one HTML file.

        A table of the numbers with what they mean, and the figures. The file holds all
        that it shows: it runs no script and loads nothing.

        Args:
            path: File to write.
            *others: Further reports, of the same number of layers.
            title: Title of the document. Defaults to the reports' names.
        """
        from keras_dskd.structure.html import html_report

        Path(path).write_text(html_report([self, *others], title), encoding="utf-8")

    def to_dict(self) -> dict[str, Any]:
        """The table's numbers, as plain data."""
        return {
            "name": self.name,
            "accuracy": self.accuracy,
            "layers": {
                layer: {
                    "channels": feature.channels,
                    "mean_correlation": feature.mean_correlation,
                    "uniformity": feature.uniformity,
                    "effective_rank": feature.effective_rank,
                    "dead_channels": feature.dead_channels,
                }
                for layer, feature in self.layers.items()
            },
        }


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
    """Measures the structure of a model's features over data.

    Args:
        model: A built `keras.Model`; runs in inference mode.
        x: Its input: arrays, at least two samples.
        layers: Name or names of the layers to look at. See
            `keras_dskd.features.taps.Tap`.
        y: Labels, `(n,)` class indices or `(n, classes)` one-hot; for the accuracy
            of the model's final output.
        name: What to call the report. Defaults to the model's name.
        batch_size: Samples at once.
        max_samples: Structure is measured on at most so many samples, evenly spaced
            over the data, since uniformity looks at all pairs. Accuracy is over all.
        verbose: 0 for silence, 1 or `"auto"` for a progress bar, 2 for a line at the
            end; as of `keras.Model.predict`.

    Returns:
        A `StructureReport`: `.summary()` prints a table, `.plot()` draws a figure,
        `.to_html()` writes both to a file.

    Raises:
        ValueError: If a layer is not found, the input does not fit the model, or labels
            do not fit the output.
    """
    layers = [layers] if isinstance(layers, str) else list(layers)
    if not layers:
        raise ValueError("`layers` must name at least one layer. Received: layers=[]")
    pairs.check_fits(model, x)
    read = [*layers, OUTPUT] if y is not None else layers
    features = FeatureModel(model, read, pooled=layers).predict(
        x, batch_size=batch_size, verbose=verbose
    )
    picked = _evenly_spaced_indices(len(features[layers[0]]), max_samples)
    accuracy = labels = None
    if y is not None:
        labels = _class_indices(y, features[OUTPUT])
        accuracy = float(np.mean(np.argmax(features[OUTPUT], axis=-1) == labels))
        labels = labels[picked]
    return StructureReport(
        name=name or model.name,
        layers={layer: measure(features[layer][picked]) for layer in layers},
        accuracy=accuracy,
        labels=labels,
        samples=len(features[layers[0]]),
    )


def evenly_spaced(x: Nested, max_samples: int) -> Nested:
    """At most so many samples of data, evenly spaced: a structure of NumPy arrays.

    Raises:
        ValueError: If it is no structure of arrays of one length, at least two.
    """
    x = keras.tree.map_structure(arrays.sliceable, x)
    leaves = keras.tree.flatten(x)
    shapes = [getattr(array, "shape", None) for array in leaves]
    counts = [arrays.row_count(array) for array in leaves]
    count = counts[0] if len(set(counts)) == 1 else None
    if count is None:
        raise ValueError(
            "Expected arrays with one row a sample. Received: "
            f"{[type(array).__name__ for array in leaves]} of shapes {shapes}"
        )
    if count < 2:
        raise ValueError(
            f"Structure is measured on at least 2 samples. Received: {shapes[0]}"
        )
    picked = _evenly_spaced_indices(count, max_samples)
    return keras.tree.map_structure(lambda array: arrays.dense(array[picked]), x)


def _evenly_spaced_indices(count: int, at_most: int) -> NDArray[Any]:
    return np.unique(np.linspace(0, count - 1, min(count, at_most)).astype(int))


def measure(rows: Any) -> FeatureStructure:
    """The structure of rows `(n, c)`: a `FeatureStructure`."""
    rows = np.asarray(rows, "float32")
    if not np.isfinite(rows).all():
        raise ValueError(
            f"Features must be finite. Received {np.sum(~np.isfinite(rows))} values "
            f"that are not, of {rows.size}."
        )
    spread = rows.std(axis=0)
    # An epsilon beside the variance would shrink the correlation of quiet channels.
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


def _class_indices(y: Any, output: NDArray[Any]) -> NDArray[Any]:
    y = np.asarray(y)
    if output.ndim == 2 and output.shape[1] == 1:
        raise ValueError(
            "Accuracy is that of the most likely class, and the output has one column. "
            f"Received: an output of shape {output.shape}. Leave out `y`."
        )
    if y.ndim == 2 and y.shape[1] > 1:
        y = np.argmax(y, axis=1)
    y = y.reshape(-1)
    if not np.array_equal(y, np.round(y)):
        raise ValueError("Labels must be class indices. Received fractions in `y`.")
    if output.ndim != 2 or len(y) != len(output):
        raise ValueError(
            "Accuracy needs one label a sample and an output of shape (n, classes). "
            f"Received: {len(y)} labels and an output of shape {output.shape}"
        )
    return y.astype(int)


def _number(tensor: Tensor) -> NDArray[Any]:
    return keras_ops.convert_to_numpy(tensor)
