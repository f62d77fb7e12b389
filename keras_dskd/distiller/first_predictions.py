"""A look at a few predictions of models whose graph does not show what they return."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_dskd.data import pairs
from keras_dskd.data.first_rows import first_rows
from keras_dskd.distiller.loss_term import LossTerm
from keras_dskd.features.feature_model import FeatureModel
from keras_dskd.features.output_kind import output_kinds
from keras_dskd.features.taps import OUTPUT
from keras_dskd.internal.types import Nested, Role


def check_first_predictions(distiller: Any, x: Any) -> Any:
    """Lets losses check predictions for the first rows of the data.

    It looks only at outputs whose kind the graph does not show, as in subclassed
    models, and at stored outputs of other models.

    Args:
        distiller: A `Distiller`.
        x: What `fit` takes as `x`.

    Returns:
        `x` to train on.

    Raises:
        ValueError: If the predictions do not fit a loss, such as probabilities in the
            place of logits.
    """
    unknown: dict[Role, dict[str, list[Any]]] = {
        "teacher": _unknown(distiller.loss_terms, "teacher", distiller.teacher),
        "student": _unknown(distiller.loss_terms, "student", distiller.student),
    }
    if not any(unknown.values()) or distiller.student_loss_weight == 1:
        return x
    rows, x = first_rows(x)
    if rows is None:
        return x
    pair = pairs.split(rows)
    for role, named in unknown.items():
        predictions = _predictions(distiller, role, pair, list(named)) if named else {}
        for name, values in predictions.items():
            for loss in named[name]:
                loss.validate_predictions(role, values)
    return x


def _unknown(
    terms: Sequence[LossTerm], role: Role, model: keras.Model | None
) -> dict[str, list[Any]]:
    """The losses of predictions that a model makes in an unknown way, by layer."""
    found: dict[str, list[Any]] = {}
    for term in terms:
        name = term.layer_name(role)
        if name is None or not hasattr(term.loss, "validate_predictions"):
            continue
        layer = None if name == OUTPUT else name
        if model is None or None in output_kinds(model, layer):
            found.setdefault(name, []).append(term.loss)
    return found


def _predictions(
    distiller: Any, role: Role, pair: pairs.Pair, names: list[str]
) -> dict[str, Nested]:
    model, x = getattr(distiller, role), getattr(pair, role)
    if role == "teacher" and pair.teacher_features is not None:
        cached = pair.teacher_features
        if not isinstance(cached, dict):
            return {}  # The step says what is wrong.
        values = {n: v for n, v in cached.items() if n in names}
    elif x is None or (role == "teacher" and not model.built):
        return {}  # The step says what is missing.
    else:
        pairs.check_input(role, pair, distiller.teacher, distiller.student)
        if not model.built:
            # Layers that a model creates in `build` cannot be tapped before it.
            model(x, training=False)
        features = FeatureModel(model, names)(x)
        values = {name: features[name] for name in names}  # Without masks.
    mask = pair.teacher_mask if role == "teacher" else None

    def array(value: Any) -> Any:
        value = np.asarray(ops.convert_to_numpy(value))
        return value if mask is None else value[np.reshape(mask, -1).astype(bool)]

    return keras.tree.map_structure(array, values)
