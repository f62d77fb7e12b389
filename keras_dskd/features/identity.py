"""Detect that a model differs: by its weights, or by the dtypes it computes in."""

import hashlib

import keras
import numpy as np
from keras import ops

from keras_dskd.features.layer_graph import has_graph, layer_paths


def fingerprint(model: keras.Model) -> str:
    """SHA-256 of the shapes and values of a model's weights, in hexadecimal."""
    digest = hashlib.sha256()
    for weight in model.weights:
        array = np.asarray(ops.convert_to_numpy(ops.cast(weight, "float32")))
        digest.update(str(array.shape).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def dtype_policies(model: keras.Model) -> list[str]:
    """The sorted names of the dtype policies of a model's layers.

    Functional models, Sequential models and input layers do not count: they compute
    nothing, and loading does not restore their own policy.
    """
    layers = [model, *(layer for _, layer in layer_paths(model))]
    return sorted(
        {
            layer.dtype_policy.name
            for layer in layers
            if not has_graph(layer) and not isinstance(layer, keras.layers.InputLayer)
        }
    )
