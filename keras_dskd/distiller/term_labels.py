"""The labels that a loss reads, if the student has several outputs."""

import re
from typing import Any

import keras

from keras_dskd.distiller.loss_term import LossTerm
from keras_dskd.features.finding import find_layer
from keras_dskd.features.taps import OUTPUT
from keras_dskd.internal.keras_private import producer
from keras_dskd.internal.types import Nested


def labels_for(term: LossTerm, labels: Nested, student: keras.Model) -> Nested:
    """The labels of the output that a loss reads.

    A loss with an attribute `label_name` gets the labels of the output with that name.
    If it is `None`, the loss gets those of the output that its student layer makes. If
    it also has `reads_labels = False`, it gets `None`.
    Other losses, and losses that read all outputs, get `labels` unchanged.

    Args:
        term: The loss.
        labels: The batch's `y`: one array, or a dict, list or tuple with one for each
            output.
        student: The student.

    Returns:
        The labels of one output, or `labels`.

    Raises:
        ValueError: If the output is unknown.
    """
    if labels is None or not hasattr(term.loss, "label_name"):
        return labels
    if not getattr(term.loss, "reads_labels", True):
        return None
    wanted = term.loss.label_name
    loss = type(term.loss).__name__
    if not isinstance(labels, (dict, list, tuple)):
        if wanted is not None:
            raise ValueError(
                f"{loss}(label_name={wanted!r}) names one of several outputs, and the "
                "labels are one array. Leave `label_name` out, or pass labels by "
                "output."
            )
        return labels
    by_output = _by_output(labels, student)
    if wanted is None:
        if len(by_output) == 1:
            return by_output[0][1]
        if term.student_name == OUTPUT:
            return labels
        path = re.split("[#:]", term.student_name)[0].split("/")
    else:
        path = [wanted]
    for name in reversed(path):
        found = [label for names, label in by_output if name in names]
        if len(found) == 1:
            return found[0]
    known = sorted({name for names, _ in by_output for name in names})
    received = (
        f"the student's layer {term.student_name!r}"
        if wanted is None
        else f"label_name={wanted!r}"
    )
    raise ValueError(
        f"{loss} reads the labels of one output, and the batch has labels for "
        f"{len(by_output)}. Pass label_name=..., one of {known}. Received: {received}"
    )


def value_of_output(term: LossTerm, values: Nested, student: keras.Model) -> Any:
    """Of values by output, such as compiled losses, the one of the output that is read.

    Args:
        term: The loss.
        values: One value, or a dict, list or tuple with one for each output.
        student: The student.

    Returns:
        One value. `None` if the loss reads no output of the student, or all of several.
    """
    has_outputs = bool(getattr(student, "outputs", None))
    if term.student_name == OUTPUT:
        if not isinstance(values, (dict, list, tuple)):
            return values
        return (
            next(iter(values.values() if isinstance(values, dict) else values))
            if (len(values) == 1)
            else None
        )
    if not has_outputs:
        return None
    read = find_layer(student, term.student_name)
    if all(producer(output) is not read for output in student.outputs):
        return None
    if not isinstance(values, (dict, list, tuple)):
        return values
    name = re.split("[#:]", term.student_name)[0].rpartition("/")[2]
    found = [value for names, value in _by_output(values, student) if name in names]
    return found[0] if len(found) == 1 else None


def _by_output(
    labels: dict[str, Nested] | list[Nested] | tuple[Nested, ...], student: keras.Model
) -> list[tuple[set[str], Nested]]:
    """Each output's labels, with the names of the output: its key and its layer."""
    outputs = getattr(student, "outputs", None) or []
    layers = [producer(output).name for output in outputs]
    if not isinstance(labels, dict):
        if len(layers) != len(labels):
            layers = [""] * len(labels)
        return [({n} - {""}, label) for n, label in zip(layers, labels, strict=True)]
    output = student.output if outputs else None
    keyed = output if isinstance(output, dict) else {}
    layer_of = {key: producer(tensor).name for key, tensor in keyed.items()}
    return [({key, layer_of.get(key, key)}, label) for key, label in labels.items()]
