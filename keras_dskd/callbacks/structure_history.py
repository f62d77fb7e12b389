"""A callback for `fit` that logs the structure of features and warns of trouble."""

import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_dskd import ops
from keras_dskd.data import arrays, pairs
from keras_dskd.distiller.loss_term import names_read
from keras_dskd.features.feature_model import FeatureModel
from keras_dskd.features.taps import OUTPUT, Tap
from keras_dskd.internal.metric_names import TOTALS
from keras_dskd.internal.types import Nested
from keras_dskd.structure import FeatureStructure, measurement

#: Features have collapsed to a line if their centered effective rank is below this.
COLLAPSED_RANK = 1.5
#: Features have collapsed to one direction if their uniformity is above this.
COLLAPSED_UNIFORMITY = -1e-3


class StructureHistory(keras.callbacks.Callback):
    """Log the structure of features each epoch, and warn of collapse and NaN.

    At the end of each epoch, this callback adds three values per layer to the logs of
    `fit`: `"{layer}/off_diagonal_correlation"` (mean of |correlation| over pairs of
    different channels), `"{layer}/uniformity"` (see
    `keras_dskd.ops.spatial_uniformity`) and `"{layer}/effective_rank"` (RankMe).
    Put it first in the list of callbacks: `TensorBoard`, `CSVLogger`, `EarlyStopping`
    and others only see these values if they come later.

    It warns once per layer and kind of trouble:

    - Dead channels: they do not vary over the data.
    - Collapse: the features lie on a line (their effective rank after subtracting the
      mean is below 1.5), or all point in one direction (their uniformity is above
      -0.001). With two classes, features on a line can be the right result.
    - NaN or infinity in features, in weights, or in a term of the loss. The warning
      names the term and the layers that it reads.

    It works with a `Distiller` and with any other Keras model. For the latter, `x` and
    `layers` refer to the model itself.

    Args:
        x: Data to measure on: arrays with at least two samples, either the student's
            input or the dict that `fit` takes.
        layers: Name or names of layers of the student. See
            `keras_dskd.features.taps.Tap`. Defaults to the layers that the distiller's
            losses read.
        terminate_on_nan: Whether to stop training when a term of the loss or a weight
            is NaN or infinite, and to restore the last good copy of the weights of the
            model and its optimizer.
        copy_every: Number of batches between copies of the weights for
            `terminate_on_nan`. Defaults to `None`: copy before training and after each
            epoch. Each copy moves all weights to main memory.
        batch_size: Number of samples per batch.
        max_samples: Measure on at most this many samples, evenly spaced over the data.

    Raises:
        ValueError: If a layer is not found, if no layer is named and no loss reads one,
            or if `x` has fewer than two samples.

    Example:
    ```python
    history = keras_dskd.callbacks.StructureHistory(radar_val, ["features"])
    log = keras.callbacks.CSVLogger("log.csv")
    pairs = {"teacher": optical, "student": radar}
    distiller.fit(pairs, labels, epochs=20, callbacks=[history, log])
    ```
    """

    def __init__(
        self,
        x: Nested,
        layers: str | Sequence[str] | None = None,
        terminate_on_nan: bool = False,
        copy_every: int | None = None,
        batch_size: int = 128,
        max_samples: int = 512,
    ) -> None:
        super().__init__()
        if copy_every is not None and not copy_every >= 1:
            raise ValueError(
                "`copy_every` must be a number of batches, at least 1. Received: "
                f"copy_every={copy_every}"
            )
        self.x = arrays.evenly_spaced(pairs.split(x).student, max_samples)
        self.layers = [layers] if isinstance(layers, str) else layers
        self.terminate_on_nan = terminate_on_nan
        self.copy_every = copy_every
        self.batch_size = batch_size
        self._warned: set[str | tuple[str, str]] = set()
        # When the weights were copied, and their values.
        self._copy: tuple[str, list[NDArray[Any]]] = "", []
        self._features: FeatureModel

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        model = self.model
        student = getattr(model, "student", model)
        terms = getattr(model, "loss_terms", ())
        names = self.layers
        if names is None:
            names = [name for name in names_read(terms, "student") if name != OUTPUT]
        if not names:
            raise ValueError(
                "StructureHistory has no layer to measure, because no loss reads a "
                "layer by name. Pass `layers`, the names of layers of the student."
            )
        for name in names:
            Tap(student, name)
        self._features = FeatureModel(student, names, pooled=names)
        self._read_by = {
            term.name: f"teacher {term.teacher_name!r}, student {term.student_name!r}"
            for term in terms
        }
        self._warned.clear()
        if self.terminate_on_nan:
            if not model.optimizer.built:
                model.optimizer.build(model.trainable_variables)
            self._copy_weights("before training")

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch
        self._copied_in_batch = 0

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        where = f"epoch {self._epoch + 1}, batch {batch + 1}"
        # Other metrics may be NaN for harmless reasons.
        bad = [
            name
            for name, value in (logs or {}).items()
            if name in (*TOTALS, *self._read_by) and not np.all(np.isfinite(value))
        ]
        if bad:
            # If a term is bad, so are the totals that contain it: name the term alone.
            culprits = [name for name in bad if name in self._read_by] or bad
            described = ", ".join(
                f"{name} ({self._read_by[name]})" if name in self._read_by else name
                for name in culprits
            )
            self._report_nan("loss", f"NaN or infinity in {where}: {described}.")
        elif (
            self.terminate_on_nan
            and self.copy_every is not None
            and batch + 1 - self._copied_in_batch >= self.copy_every
        ):
            self._copied_in_batch = batch + 1
            self._copy_weights(where)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self.terminate_on_nan and not self.model.stop_training:
            self._copy_weights(f"the end of epoch {epoch + 1}")
        features = self._features.predict(self.x, batch_size=self.batch_size, verbose=0)
        for layer, rows in features.items():
            if np.isfinite(rows).all():
                measured = measurement.measure(rows)
                self._check(layer, measured)
            else:
                measured = None
                self._warn(
                    (layer, "finite"),
                    f"Features of layer {layer!r} contain NaN or infinity at the end "
                    f"of epoch {epoch + 1}.",
                )
            for key, attribute in (
                ("off_diagonal_correlation", "mean_correlation"),
                ("uniformity", "uniformity"),
                ("effective_rank", "effective_rank"),
            ):
                if logs is not None:
                    logs[f"{layer}/{key}"] = getattr(measured, attribute, np.nan)

    def _check(self, layer: str, measured: FeatureStructure) -> None:
        if measured.dead_channels:
            self._warn(
                (layer, "dead"),
                f"{measured.dead_channels} of {measured.channels} channels of layer "
                f"{layer!r} are dead: they do not vary over the data.",
            )
        rank = float(ops.centered_effective_rank(measured.rows))
        is_on_a_line = rank < COLLAPSED_RANK and measured.channels > 1
        if is_on_a_line or measured.uniformity > COLLAPSED_UNIFORMITY:
            self._warn(
                (layer, "collapse"),
                f"Features of layer {layer!r} have collapsed: their centered "
                f"effective rank is {rank:.2f} of {measured.channels} channels, and "
                f"their uniformity is {measured.uniformity:.4f}. Lower the weights of "
                "losses that make features similar, or raise the weights of "
                "ChannelIndependence and SpatialUniformity.",
            )

    def _report_nan(self, kind: str, message: str) -> None:
        """Warn. With `terminate_on_nan`, also restore the weights and stop training."""
        if not self.terminate_on_nan:
            self._warn(kind, message)
            return
        when, values = self._copy
        for variable, value in zip(self._watched_variables(), values, strict=True):
            variable.assign(value)
        self.model.stop_training = True
        self._warn(kind, f"{message} Training stops with the weights from {when}.")

    def _copy_weights(self, when: str) -> None:
        variables = self._watched_variables()
        values = [keras.ops.convert_to_numpy(v).copy() for v in variables]
        bad = [
            variable.path
            for variable, value in zip(variables, values, strict=True)
            if not np.all(np.isfinite(value.astype("float32")))
        ]
        if not bad:
            self._copy = when, values
        elif self._copy[0]:
            self._report_nan("weights", f"NaN or infinity in weights ({when}): {bad}.")
        else:
            raise ValueError(
                f"NaN or infinity in weights ({when}): {bad}. Initialize the model or "
                "load other weights."
            )

    def _watched_variables(self) -> list[keras.Variable]:
        """All variables that training changes: not the teacher's, and no metrics."""
        model = self.model
        excluded = {id(variable) for variable in model.metrics_variables}
        if hasattr(model, "teacher"):
            excluded |= {id(variable) for variable in model.teacher.variables}
            # Layers that student and teacher share are trained.
            excluded -= {id(variable) for variable in model.student.variables}
        kept = [v for v in model.variables if id(v) not in excluded]
        return [*kept, *model.optimizer.variables]

    def _warn(self, kind: str | tuple[str, str], message: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn(message, stacklevel=2)
