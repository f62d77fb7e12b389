"""Find a layer of a model, or one output of it, by name.

This is how a name such as `"stage2/conv1"` is resolved. The first rule that finds
something decides:

1. It is the whole path of one layer: the names of the models and layers on the way to
   it, and its own name.
2. It is the end of the path of exactly one layer. A layer's own name is enough if it is
   unique in the model.
3. It names an operation that is not a layer, such as the addition in `x + y`, by rules
   1 and 2.
4. Its last part is a feature-pyramid level, such as `"P3"`, of the model, or of the
   layer that the rest of the name refers to. See `keras_dskd.features.pyramid`.

A name that fits several layers is an error that lists their paths. A name that fits
none is an error that suggests the closest names.
"""

import difflib
from collections.abc import Sequence

import keras

from keras_dskd.features import pyramid
from keras_dskd.features.layer_graph import Names, layer_paths, operation_paths


def find_layer(model: keras.Model, name: str) -> keras.layers.Layer:
    """The layer that a name refers to. See `keras_dskd.features.finding`.

    Raises:
        ValueError: If the name fits no layer, or more than one.
    """
    return find_output(model, name)[0]


def find_output(model: keras.Model, name: str) -> tuple[keras.Operation, int | None]:
    """The layer that a name refers to, and which of its outputs.

    Args:
        model: The `keras.Model` that holds the layer.
        name: Name, path or pyramid level. See `keras_dskd.features.finding`.

    Returns:
        `(layer, index)`. The index counts the layer's outputs, flattened, if the name
        is a pyramid level. For any other name it is `None`: all that the layer returns.

    Raises:
        ValueError: If the name fits no layer, or more than one.
    """
    layers, wanted = layer_paths(model), tuple(name.split("/"))
    layer = _find_named(model, name, layers)
    if layer is None:
        layer = _find_named(model, name, operation_paths(model))
    if layer is not None:
        return layer, None
    if pyramid.is_level(model, wanted[-1]):
        holder = find_layer(model, "/".join(wanted[:-1])) if wanted[1:] else model
        try:
            return pyramid.find_level(holder, wanted[-1])
        except ValueError as error:
            raise ValueError(
                f'Tap "{name}" not found in model "{model.name}": no layer has this '
                f"name, and it cannot be read as a pyramid level. {error}"
            ) from error
    raise ValueError(
        f'Tap "{name}" not found in model "{model.name}". '
        + _suggestion(name, [path for path, _ in layers])
    )


def _find_named(
    model: keras.Model, name: str, layers: Sequence[tuple[Names, keras.Operation]]
) -> keras.Operation | None:
    """The one of the `(path, layer)`s whose path is the name, or ends in it."""
    wanted = tuple(name.split("/"))
    exact = {id(layer): layer for path, layer in layers if path == wanted}
    if len(exact) == 1:
        return next(iter(exact.values()))
    # A layer that is reached by several paths is one match. Report its first path.
    matches = {
        id(layer): (path, layer)
        for path, layer in reversed(layers)
        if path[-len(wanted) :] == wanted
    }
    if len(matches) > 1:
        paths = sorted(f'"{"/".join(path)}"' for path, _ in matches.values())
        raise ValueError(
            f'Tap "{name}" is ambiguous in model "{model.name}": {len(paths)} layers '
            f"have this name. Use a path: {', '.join(paths)}."
        )
    return next((layer for _, layer in matches.values()), None)


def _suggestion(name: str, layer_paths: Sequence[Names]) -> str:
    paths = ["/".join(path) for path in layer_paths]
    names = list(dict.fromkeys(paths + [path[-1] for path in layer_paths]))
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return "Did you mean " + " or ".join(f'"{name}"' for name in close) + "?"
    more = ", ..." if len(paths) > 20 else ""
    return f"Its layers are: {', '.join(paths[:20])}{more}."
