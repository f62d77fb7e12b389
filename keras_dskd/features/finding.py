"""Find a layer of a model, or one output of it, by name.

A name such as `"stage2/conv1"` is compared with these, in this order, and the first
match decides:

1. The whole path of a layer: the names of the models and layers that hold it, and its
   own name.
2. The end of a layer's path. A layer's own name is enough if it is unique in the model.
3. The path, or its end, of an operation that is not a layer, such as the addition in
   `x + y`.
4. A feature-pyramid level, such as `"P3"`. In `"backbone/P3"`, the parts before the
   level name the layer that has it. See `keras_dskd.features.pyramid`.

If the first match is several layers, the error lists their paths. If nothing matches,
the error suggests the closest names.
"""

import difflib
from collections.abc import Sequence

import keras

from keras_dskd.features import pyramid
from keras_dskd.features.layer_graph import Names, layer_paths, operation_paths


def find_layer(model: keras.Model, name: str) -> keras.layers.Layer:
    """The layer that a name refers to. See `keras_dskd.features.finding`.

    Raises:
        ValueError: If the name matches no layer, or more than one.
    """
    return find_output(model, name)[0]


def find_output(model: keras.Model, name: str) -> tuple[keras.Operation, int | None]:
    """The layer that a name refers to, and which of its outputs.

    Args:
        model: The `keras.Model` that holds the layer.
        name: Name, path or pyramid level. See `keras_dskd.features.finding`.

    Returns:
        `(layer, index)`. For a pyramid level, the index selects one of the layer's
        flattened outputs. For any other name it is `None`: the layer's whole output.

    Raises:
        ValueError: If the name matches no layer, or more than one.
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
    """The layer whose path is the name or ends with it. `None` if there is none."""
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
