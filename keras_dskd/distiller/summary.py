"""A distiller at a glance: its `repr`, and the tables of its `summary`."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import rich.console  # Keras's own way to print summaries.
import rich.markup
from keras import ops

from keras_dskd.distiller import loss_interface
from keras_dskd.internal.tables import table


def line(distiller: keras.Model) -> str:
    """A distiller in one line: its models, and the formula of its total."""
    if not hasattr(distiller, "teacher") or not hasattr(distiller, "_means"):
        return str(keras.Model.__repr__(distiller))  # It is being made, or saved.
    weighted = " + ".join(
        f"{_weight_name(weight)} {term}"
        for weight, term in zip(
            distiller.distillation_loss_weights,
            loss_interface.names(distiller.distillation_losses),
            strict=True,
        )
    )
    share = distiller.student_loss_weight
    return (
        f"<{type(distiller).__name__} name={distiller.name}, "
        f"teacher={distiller.teacher.name}, student={distiller.student.name}, "
        f"total={share:g} student_loss + {1 - share:g} ({weighted})>"
    )


def summary(  # noqa: D417 - a method of `Distiller`.
    self: keras.Model,
    line_length: int | None = None,
    positions: Sequence[float] | None = None,
    print_fn: Callable[[str], Any] | None = None,
    expand_nested: bool = False,
    show_trainable: bool = False,
    layer_range: Sequence[str] | None = None,
) -> None:
    """Prints the distiller's parts and terms, with their parameters and weights.

    One table has the parts, with the numbers of all parameters and of those that are
    trained; the other the terms, each with the layers that it compares and its weight,
    at the present step where it follows a schedule. Where an argument is about layers,
    Keras's summaries of the models come after them.

    Args:
        line_length: Length of the longest line. Defaults to the terminal's width.
        positions: Where columns end in Keras's summaries.
        print_fn: Function to call with the text, and with that of each of Keras's
            summaries. Defaults to printing.
        expand_nested: Whether to add Keras's summaries of teacher and student, with
            the layers of the models inside them.
        show_trainable: Whether to add those summaries, and to say in them which layers
            are trainable.
        layer_range: Names or patterns of two layers of the student: adds its summary
            from the one to the other.
    """
    self._sync_state()
    share = self.student_loss_weight
    console = rich.console.Console(
        highlight=False,
        width=line_length,
        force_terminal=False if print_fn else None,
        color_system=None if print_fn else "auto",
    )
    if print_fn:
        console.begin_capture()
    console.print(f'[bold]Distiller: "{rich.markup.escape(self.name)}"[/]')
    numbers = ["Param #", "Trained #"]
    console.print(
        table(["Part", "Layer (type)", *numbers], _parts(self), right_aligned=numbers)
    )
    console.print(table(["Term", "Teacher", "Student", "Weight"], _terms(self)))
    console.print(
        f" total = {share:g} student_loss + {1 - share:g} Σ weight · term, "
        f"at step {int(_number(self._term_weights.step)):,}"
    )
    if print_fn:
        print_fn(console.end_capture())
    options = {
        "line_length": line_length,
        "positions": positions,
        "print_fn": print_fn,
        "expand_nested": expand_nested,
        "show_trainable": show_trainable,
    }
    if expand_nested or show_trainable:
        self.teacher.summary(**options)
    if expand_nested or show_trainable or layer_range:
        self.student.summary(**options, layer_range=layer_range)


def _parts(distiller: keras.Model) -> Iterator[Sequence[str]]:
    """Rows of the first table."""
    losses = distiller.distillation_losses
    parts = [("teacher", distiller.teacher), ("student", distiller.student)]
    for name, projector in distiller.projectors.items():
        parts.append((f"projector of {name}", projector))
    for term, loss in zip(loss_interface.names(losses), losses, strict=True):
        for layer in loss_interface.layers_in([loss], distiller.teacher):
            parts.append((f"in {term}", layer))
    trained = {id(weight) for weight in distiller.trainable_weights}
    for part, layer in parts:
        counts = ["not built", ""]
        if layer.built:
            sizes = {id(weight): math.prod(weight.shape) for weight in layer.weights}
            in_training = sum(sizes[weight] for weight in trained.intersection(sizes))
            counts = [f"{sum(sizes.values()):,}", f"{in_training:,}"]
        yield part, f"{layer.name} ({type(layer).__name__})", *counts


def _terms(distiller: keras.Model) -> Iterator[Sequence[str]]:
    """Rows of the second table."""
    losses = distiller.distillation_losses
    for term, loss, weight, present in zip(
        loss_interface.names(losses),
        losses,
        distiller.distillation_loss_weights,
        distiller._term_weights.at_step(),
        strict=True,
    ):
        student_layer = loss_interface.key(loss, "student")
        projector = distiller.projectors.get(student_layer)
        yield (
            term,
            loss_interface.key(loss, "teacher") or "not read",
            f"{student_layer} → {projector.name}" if projector else student_layer,
            _weight_name(weight)
            + (f", now {_number(present):.4g}" if callable(weight) else ""),
        )


def _weight_name(weight: Any) -> str:
    """A number, or what a function of the step is called."""
    if callable(weight):
        return str(getattr(weight, "__name__", type(weight).__name__))
    return f"{weight:g}"


def _number(tensor: Any) -> float:
    return float(ops.convert_to_numpy(tensor))
