"""What tells two models apart: their weights, and the types they compute in."""

import hashlib

import keras
import numpy as np
from keras import ops

from keras_dskd.features.layer_graph import has_graph, layer_paths


def fingerprint(model: keras.Model) -> str:
    """A text that is another one for other weights: SHA-256 of shapes and numbers."""
    digest = hashlib.sha256()
    for weight in model.weights:
        array = np.asarray(ops.convert_to_numpy(ops.cast(weight, "float32")))
        digest.update(str(array.shape).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def dtype_policies(model: keras.Model) -> list[str]:
    """Names of the dtype policies that a model's layers compute by, sorted.

    Models that are a graph of layers compute nothing, and lose theirs when loaded.
    """
    layers = [model, *(layer for _, layer in layer_paths(model))]
    return sorted(
        {
            layer.dtype_policy.name
            for layer in layers
            if not has_graph(layer) and not isinstance(layer, keras.layers.InputLayer)
        }
    )
