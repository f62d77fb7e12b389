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

After the path, `"#1"` picks one of several calls, and `":1"` one of several outputs:
`"head#1"`, `"lstm:1"`, `"lstm#0:1"`. Without a path, `":1"` is an output of the model.
"""

import difflib
from collections.abc import Sequence
from typing import NamedTuple

import keras

from keras_dskd.features import pyramid
from keras_dskd.features.layer_graph import Names, layer_paths, operation_paths
from keras_dskd.internal.members import members_of


class Found(NamedTuple):
    """What a name refers to.

    Attributes:
        layer: The layer or operation.
        call: Number of the call, counted from 0. `None` if the name does not say.
        output: Which output: an index into the flattened outputs, or a key. `None` if
            the name does not say.
        path: The name without the call and the output.
    """

    layer: keras.Operation
    call: int | None
    output: int | str | None
    path: str


def find_layer(model: keras.Model, name: str) -> keras.layers.Layer:
    """The layer that a name refers to. See `keras_dskd.features.finding`.

    Raises:
        ValueError: If the name matches no layer, or more than one.
    """
    return find(model, name).layer


def find(model: keras.Model, name: str) -> Found:
    """What a name refers to. See `keras_dskd.features.finding`.

    Raises:
        ValueError: If the name matches no layer, or more than one, or its call is not a
            number.
    """
    member, slash, rest = name.partition("/")
    if slash and member in members_of(model):
        found = find(members_of(model)[member], rest)
        return found._replace(path=f"{member}/{found.path}")
    layer = _find_by_path(model, name)
    if layer is not None:  # The layer's own name may hold "#" and ":".
        return Found(layer, None, None, name)
    rest, colon, output = name.rpartition(":")
    if not colon or "#" in output:
        rest, colon, output = name, "", ""
    path, sharp, call = rest.rpartition("#")
    path = path if sharp else rest
    if call and sharp and not call.isdecimal():
        raise ValueError(
            "The call of a tap must be a number counted from 0, as in "
            f'"{path}#0". Received: "{name}"'
        )
    if colon and not output:
        raise ValueError(
            "The output of a tap must be a number counted from 0, or a key of a dict "
            f'of outputs, as in "{rest}:0". Received: "{name}"'
        )
    layer, level = _find_output(model, path) if path or not colon else (model, None)
    if colon and level is not None:
        raise ValueError(
            f'"{path}" is a pyramid level, which is one output. Received: "{name}"'
        )
    return Found(
        layer,
        int(call) if call and sharp else None,
        (int(output) if output.isdecimal() else output) if colon else level,
        path,
    )


def _find_output(model: keras.Model, path: str) -> tuple[keras.Operation, int | None]:
    """The layer at a path, and which of its outputs if the path is a pyramid level."""
    layers, wanted = layer_paths(model), tuple(path.split("/"))
    layer = _find_by_path(model, path)
    if layer is not None:
        return layer, None
    if pyramid.is_level(model, wanted[-1]):
        holder = find_layer(model, "/".join(wanted[:-1])) if wanted[1:] else model
        try:
            return pyramid.find_level(holder, wanted[-1])
        except ValueError as error:
            raise ValueError(
                f'Tap "{path}" not found in model "{model.name}": no layer has this '
                f"name, and it cannot be read as a pyramid level. {error}"
            ) from error
    raise ValueError(
        f'Tap "{path}" not found in model "{model.name}". '
        + _suggestion(path, [path for path, _ in layers])
    )


def _find_by_path(model: keras.Model, path: str) -> keras.Operation | None:
    """The layer or operation whose path is this or ends with it, or `None`."""
    layer = _find_named(model, path, layer_paths(model))
    return layer or _find_named(model, path, operation_paths(model))


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
