"""Callbacks for `fit`: the structure of features each epoch, and alarms."""

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

#: Features are said to have collapsed below this effective rank about their mean ...
COLLAPSED_RANK = 1.5
#: ... or above this uniformity, where all of them point the same way.
COLLAPSED_UNIFORMITY = -1e-3


class StructureHistory(keras.callbacks.Callback):
    """Logs the structure of features each epoch, and warns of collapse and NaN.

    At the end of each epoch it puts into `fit`'s logs, for each layer:
    `"{layer}/off_diagonal_correlation"` (mean of |correlation| over pairs of
    different channels), `"{layer}/uniformity"` (see
    `keras_dskd.ops.spatial_uniformity`) and `"{layer}/effective_rank"` (RankMe).
    `History`, `TensorBoard`, `CSVLogger`, `EarlyStopping` and others find them there
    if they come later in the list of callbacks: put this one first.

    It warns, once for each layer and kind of trouble: of dead channels (which do not
    vary over the data), of collapse (features on a line, with an effective rank about
    their mean below 1.5, or all in one direction, with a uniformity above -0.001; a
    task of two classes may end there rightly), and of features, weights or terms of
    the loss that are not finite, with the term's name and layers.

    Args:
        x: Data to measure on, in the modality of the student (or paired, which is
            then what the student takes of it): arrays, at least two samples.
        layers: Name or names of layers of the student. See
            `keras_dskd.features.taps.Tap`. Defaults to those that the distiller's
            losses read.
        terminate_on_nan: Whether to stop training when a term of the loss or a weight
            is not finite, and to go back to the last good weights: of the model and
            of its optimizer, as they were when they were last copied.
        copy_every: Number of batches between copies of the weights, for
            `terminate_on_nan`. Defaults to `None`: before training and after each
            epoch. Each copy takes the time of moving the weights to main memory.
        batch_size: Samples at once.
        max_samples: Structure is measured on at most so many samples, evenly spaced.

    Works with a `Distiller`, and with any other Keras model, whose layers are then
    its own.

    Raises:
        ValueError: If a layer is not found, no layer is named and no loss reads one,
            or `x` holds fewer than two samples.

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
        self._copied: tuple[str, list[NDArray[Any]]] = "", []  # When, and what.
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
                "StructureHistory has no layer to look at: no loss reads one by name. "
                "Pass `layers`, names of the student's layers."
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
        # Other metrics may have reasons of their own not to be finite.
        bad = [
            name
            for name, value in (logs or {}).items()
            if name in (*TOTALS, *self._read_by) and not np.all(np.isfinite(value))
        ]
        if bad:
            # A sum of terms is no culprit while there is one among its terms.
            culprits = [name for name in bad if name in self._read_by] or bad
            described = ", ".join(
                f"{name} ({self._read_by[name]})" if name in self._read_by else name
                for name in culprits
            )
            self._not_finite("loss", f"Not finite in {where}: {described}.")
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
                    f"Features of layer {layer!r} are not finite at the end of epoch "
                    f"{epoch + 1}.",
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
        on_a_line = rank < COLLAPSED_RANK and measured.channels > 1
        if on_a_line or measured.uniformity > COLLAPSED_UNIFORMITY:
            self._warn(
                (layer, "collapse"),
                f"Features of layer {layer!r} have collapsed: their effective rank "
                f"about the mean is {rank:.2f} of {measured.channels} channels, and "
                f"their uniformity {measured.uniformity:.4f}. Lower the weights of "
                "losses that make features alike, or raise those of "
                "ChannelIndependence and SpatialUniformity.",
            )

    def _not_finite(self, kind: str, message: str) -> None:
        if not self.terminate_on_nan:
            self._warn(kind, message)
            return
        when, values = self._copied
        for variable, value in zip(self._watched_variables(), values, strict=True):
            variable.assign(value)
        self.model.stop_training = True
        self._warn(kind, f"{message} Training stops, with the weights from {when}.")

    def _copy_weights(self, when: str) -> None:
        variables = self._watched_variables()
        values = [keras.ops.convert_to_numpy(v).copy() for v in variables]
        bad = [
            variable.path
            for variable, value in zip(variables, values, strict=True)
            if not np.all(np.isfinite(value.astype("float32")))
        ]
        if not bad:
            self._copied = when, values
        elif self._copied[0]:
            self._not_finite("weights", f"Weights are not finite ({when}): {bad}.")
        else:
            raise ValueError(f"Weights are not finite ({when}): {bad}.")

    def _watched_variables(self) -> list[keras.Variable]:
        """All that training changes: not the teacher, and no metrics."""
        model = self.model
        left_out = {id(variable) for variable in model.metrics_variables}
        if hasattr(model, "teacher"):
            left_out |= {id(variable) for variable in model.teacher.variables}
            left_out -= {id(variable) for variable in model.student.variables}
        kept = [v for v in model.variables if id(v) not in left_out]
        return [*kept, *model.optimizer.variables]

    def _warn(self, kind: str | tuple[str, str], message: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn(message, stacklevel=2)
