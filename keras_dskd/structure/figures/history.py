"""The figure of `plot_history`: what `fit` logged, one panel per quantity."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_dskd.internal.metric_names import TOTALS
from keras_dskd.structure.figures.style import (
    count_ticks,
    curve_style,
    new_figure,
    save_figure,
    short,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOSS, STUDENT_LOSS, DISTILLATION_LOSS, TOTAL_LOSS = TOTALS
#: Name of a loss -> title of its panel. The student's loss has its own scale.
LOSSES = {LOSS: LOSS, DISTILLATION_LOSS: LOSS, STUDENT_LOSS: STUDENT_LOSS}
#: Quantity that `StructureHistory` logs per layer -> title of its panel.
STRUCTURE = {
    "off_diagonal_correlation": "mean |correlation| of channels",
    "uniformity": "uniformity (lower: more even)",
    "effective_rank": "effective rank",
}
COLUMNS = 3


class Curve(NamedTuple):
    """One curve of a panel. Epochs count from 1."""

    label: str
    epochs: NDArray[Any]
    values: NDArray[Any]
    style: int
    is_validation: bool = False


def plot_history(
    history: Any,
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
    validation_freq: int = 1,
) -> Figure:
    """Draw what `fit` logged over the epochs, one panel per quantity.

    The first panel shows the total loss and the distillation loss, the second one the
    student's loss. Then each distillation term and each metric has its own panel,
    because their scales differ. The last panels show what `StructureHistory` logged,
    with one curve per layer. Validation curves are dashed.

    Args:
        history: What `fit` returned, for a `Distiller` or any other Keras model; or a
            dict that maps names to values, one value per epoch.
        path: File to save the figure to.
        title: Title of the figure.
        validation_freq: The `validation_freq` that was passed to `fit`.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError: If `history` is neither what `fit` returned nor a dict.
        ValueError: If `history` has no epochs, or the number of values of an entry
            differs from the number of epochs.

    Example:
    ```python
    pairs = {"teacher": optical, "student": radar}
    validation = radar_val, labels_val
    history = distiller.fit(pairs, labels, epochs=20, validation_data=validation)
    keras_dskd.plot_history(history, path="history.png")
    ```
    """
    panels = _panels(_curves(history, validation_freq))
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(2.9 * columns + 0.3, 2.4 * rows + (0.4 if title else 0.0))
    for index, (name, curves) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, index + 1)
        for curve in curves:
            style = curve_style(curve.style, len(curve.epochs))
            style["linestyle"] = "--" if curve.is_validation else "-"
            if curve.is_validation:
                style["markerfacecolor"] = "white"
            axes.plot(curve.epochs, curve.values, label=short(curve.label), **style)
        axes.set_title(short(name, 36), fontsize=10)
        axes.set_xlabel("epoch", fontsize=9)
        axes.tick_params(labelsize=8)
        count_ticks(axes.xaxis)
        axes.grid(alpha=0.3)
        if len(curves) > 1 or name != curves[0].label:
            axes.legend(fontsize=8)
    if title:
        figure.suptitle(title)
    return save_figure(figure, path)


def _curves(history: Any, validation_freq: int) -> dict[str, tuple[Any, Any]]:
    """Maps the name of each log to its epochs and values."""
    logs = getattr(history, "history", history)
    if not isinstance(logs, Mapping):
        raise TypeError(
            "Expected what `fit` returned, or a dict that maps names to values. "
            f"Received: {type(history).__name__}"
        )
    count = max((len(values) for values in logs.values()), default=0)
    if not count:
        raise ValueError("`history` has no epochs. Train for at least one epoch first.")
    # Resumed training does not start at epoch 0.
    epochs = np.array(getattr(history, "epoch", range(count))) + 1
    validated = epochs[epochs % validation_freq == 0]
    curves = {}
    for name, values in logs.items():
        at = validated if name.startswith("val_") else epochs
        if np.shape(values) != at.shape:
            raise ValueError(
                f"Expected {len(at)} values of {name!r} for {len(epochs)} epochs and "
                f"validation_freq={validation_freq}. Received: shape "
                f"{np.shape(values)}. Pass the `validation_freq` of `fit`."
            )
        curves[name] = at, np.asarray(values, "float64")
    return curves


def _panels(logs: Mapping[str, tuple[Any, Any]]) -> dict[str, list[Curve]]:
    """Maps titles to curves: losses first, the structure of layers last."""
    # A distiller logs its total under two names. In validation of the student alone,
    # the loss is the student's.
    doubles = {TOTAL_LOSS, f"val_{TOTAL_LOSS}"} if STUDENT_LOSS in logs else set()
    validates_total = STUDENT_LOSS not in logs or f"val_{DISTILLATION_LOSS}" in logs
    if f"val_{STUDENT_LOSS}" in logs and not validates_total:
        doubles.add(f"val_{LOSS}")  # In logs of earlier versions.
    losses: dict[str, list[Curve]] = {}
    others: dict[str, list[Curve]] = {}
    structure: dict[str, list[Curve]] = {}
    for name, (epochs, values) in logs.items():
        base = name.removeprefix("val_")
        is_validation = base != name
        layer, _, measure = base.rpartition("/")
        if name in doubles:
            continue
        if base in LOSSES:
            style = int(base == DISTILLATION_LOSS)
            is_students = name == f"val_{LOSS}" and not validates_total
            panel = STUDENT_LOSS if is_students else LOSSES[base]
            curves = losses.setdefault(panel, [])
        elif layer and measure in STRUCTURE:
            curves = structure.setdefault(STRUCTURE[measure], [])
            style, name = len(curves), layer
        else:
            curves = others.setdefault(base, [])
            style = 0
        curves.append(Curve(name, epochs, values, style, is_validation))
    for curves in losses.values():
        curves.sort(key=lambda curve: (curve.style, curve.is_validation))
    return {**losses, **others, **structure}
