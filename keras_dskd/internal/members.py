"""The models of a model that runs several teachers side by side."""

import keras


def members_of(model: keras.layers.Layer) -> dict[str, keras.Model]:
    """The models of a `keras_dskd.features.teachers.Teachers`, by their names.

    The dict is empty for any other layer.
    """
    return getattr(model, "members", None) or {}
