"""Variables of projectors and layers inside losses, made before the first step."""

from typing import Any

import keras

from keras_dskd.data import pairs
from keras_dskd.distiller.loss_values import loss_values
from keras_dskd.features.feature_model import ShapesOnly
from keras_dskd.internal.types import Nested, Tensor


def build_auxiliary_layers(distiller: Any, pair: pairs.Pair) -> None:
    """Builds projectors and layers inside losses, from shapes alone.

    Args:
        distiller: A `Distiller`.
        pair: A batch, or symbolic inputs.
    """
    # Labels are not known here.
    terms = [
        term
        for term in distiller.loss_terms
        if term.layers or "labels" not in term.arguments
    ]

    def values(x: Nested) -> list[Tensor]:
        forward = distiller.run_models(pairs.Pair(x[0], x[1], None), training=False)
        return loss_values(terms, forward.teacher, forward.student)

    shapes = keras.tree.map_structure(
        lambda array: keras.KerasTensor(
            array.shape, keras.backend.standardize_dtype(array.dtype)
        ),
        [pair.teacher, pair.student],
    )
    ShapesOnly(values).compute_output_spec(shapes)
