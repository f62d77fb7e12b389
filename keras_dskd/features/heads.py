"""The outputs of two models, in pairs."""

import keras

from keras_dskd.features.layer_graph import has_graph, layer_paths, operation_paths
from keras_dskd.internal.keras_private import origin


def heads(
    teacher: keras.Model, student: keras.Model
) -> list[tuple[str | None, str | None]]:
    """The names of the layers that make the outputs of two models, in pairs.

    If both are dicts or named by their layers in the same way, outputs are paired by
    name, otherwise by position.

    Returns:
        A list of `(teacher's layer, student's layer)`. `[(None, None)]` for models with
        one output, or of unknown structure: their final outputs.

    Raises:
        ValueError: If the numbers of outputs differ, or an output has no name.
    """
    if not (has_graph(teacher) and has_graph(student)):
        return [(None, None)]
    counts = len(teacher.outputs), len(student.outputs)
    if counts == (1, 1):
        return [(None, None)]
    if counts[0] != counts[1]:
        raise ValueError(
            f"The teacher {teacher.name!r} has {counts[0]} outputs and the student "
            f"{student.name!r} has {counts[1]}. Build a `Distiller` with one loss for "
            "each pair of layers to compare."
        )
    of_teacher, of_student = _names(teacher), _names(student)
    if set(of_teacher) == set(of_student):
        return [(of_teacher[key], of_student[key]) for key in of_student]
    return list(zip(of_teacher.values(), of_student.values(), strict=True))


def _names(model: keras.Model) -> dict[str, str]:
    """Each output's key, or the name of its layer, and the name of a tap on it."""
    tensors = model.outputs
    by_key = dict(zip(model.output_names, tensors, strict=True))
    if isinstance(model.output, dict):
        by_key = model.output  # Not in the order of the flattened outputs.
    paths = {
        id(layer): "/".join(path)
        for path, layer in (*operation_paths(model), *layer_paths(model))
    }
    names = {}
    for key, tensor in by_key.items():
        layer, call, index = origin(tensor)
        name = paths[id(layer)]
        if sum(origin(other)[0] is layer for other in tensors) > 1:
            several = len(keras.tree.flatten(layer.output)) > 1 if call == 0 else False
            name += f":{index}" if several else f"#{call}"
        names[key] = name
    return names
