"""A distiller at a glance: its `repr`, and the tables of its `summary`."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import rich.console  # Keras's own way to print summaries.
import rich.markup
from keras import ops

from keras_dskd.internal import trainer_state
from keras_dskd.internal.members import members_of
from keras_dskd.internal.tables import table


def one_line(distiller: Any) -> str:
    """The distiller's models and the formula of its total, for its `repr`."""
    if not hasattr(distiller, "teacher") or not hasattr(distiller, "_means"):
        return str(keras.Model.__repr__(distiller))  # While it is made or saved.
    weighted = " + ".join(
        f"{_weight_name(term.weight)} {term.name}" for term in distiller.loss_terms
    )
    share = distiller.student_loss_weight
    return (
        f"<{type(distiller).__name__} name={distiller.name}, "
        f"teacher={distiller.teacher.name}, student={distiller.student.name}, "
        f"total={_shares(share)[0]} student_loss + {_shares(share)[1]} ({weighted})>"
    )


def print_summary(
    distiller: Any,
    line_length: int | None = None,
    positions: Sequence[float] | None = None,
    print_fn: Callable[[str], Any] | None = None,
    expand_nested: bool = False,
    show_trainable: bool = False,
    layer_range: Sequence[str] | None = None,
) -> None:
    """Prints one table of the models and layers, and one of the losses.

    Args:
        distiller: A `Distiller`.
        line_length: Length of the longest line. Defaults to the terminal's width.
        positions: Positions at which columns end in Keras's summaries.
        print_fn: Function that gets each text. Defaults to printing.
        expand_nested: Whether to add Keras's summaries of teacher and student, with
            the layers of nested models.
        show_trainable: Whether to add those summaries, with the layers' `trainable`.
        layer_range: Names or patterns of two layers of the student: adds its summary
            from the first to the second.
    """
    trainer_state.sync(distiller)
    share = distiller.student_loss_weight
    console = rich.console.Console(
        highlight=False,
        width=line_length,
        force_terminal=False if print_fn else None,
        color_system=None if print_fn else "auto",
    )
    if print_fn:
        console.begin_capture()
    console.print(f'[bold]Distiller: "{rich.markup.escape(distiller.name)}"[/]')
    numbers = ["Param #", "Trained #"]
    header = ["Part", "Layer (type)", *numbers]
    console.print(table(header, _parts(distiller), right_aligned=numbers))
    console.print(table(["Loss", "Teacher", "Student", "Weight"], _losses(distiller)))
    console.print(
        f" total = {_shares(share)[0]} student_loss + {_shares(share)[1]} "
        "Σ weight · loss, "
        f"at step {int(_number(distiller._term_weights.step)):,}"
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
        distiller.teacher.summary(**options)
    if expand_nested or show_trainable or layer_range:
        distiller.student.summary(**options, layer_range=layer_range)


def _parts(distiller: Any) -> Iterator[Sequence[str]]:
    """Rows of the first table."""
    teachers = members_of(distiller.teacher)
    parts = [(f"teacher {key}", member) for key, member in teachers.items()]
    parts = parts or [("teacher", distiller.teacher)]
    parts.append(("student", distiller.student))
    for name, projector in distiller.projectors.items():
        parts.append((f"projector of {name}", projector))
    for term in distiller.loss_terms:
        parts += [(f"in {term.name}", layer) for layer in term.layers]
    trained = {id(weight) for weight in distiller.trainable_weights}
    for part, layer in parts:
        counts = ["not built", ""]
        if layer.built:
            sizes = {id(weight): math.prod(weight.shape) for weight in layer.weights}
            in_training = sum(sizes[weight] for weight in trained.intersection(sizes))
            counts = [f"{sum(sizes.values()):,}", f"{in_training:,}"]
        yield part, f"{layer.name} ({type(layer).__name__})", *counts


def _losses(distiller: Any) -> Iterator[Sequence[str]]:
    """Rows of the second table."""
    present = distiller._term_weights.at_step()
    for term, weight in zip(distiller.loss_terms, present, strict=True):
        projector = distiller.projectors.get(term.student_name)
        student = term.student_name
        yield (
            term.name,
            term.teacher_name or "not read",
            f"{student} → {projector.name}" if projector else student,
            _weight_name(term.weight)
            + (f", now {_number(weight):.4g}" if callable(term.weight) else ""),
        )


def _shares(weight: Any) -> tuple[str, str]:
    """The student's share of the total, and the rest."""
    name = _weight_name(weight)
    return (name, f"(1 - {name})") if callable(weight) else (name, f"{1 - weight:g}")


def _weight_name(weight: Any) -> str:
    """The weight, the ends of a linear schedule, or the name of another function."""
    if isinstance(weight, keras.optimizers.schedules.PolynomialDecay):
        return f"{weight.initial_learning_rate:g}→{weight.end_learning_rate:g}"
    if callable(weight):
        return str(getattr(weight, "__name__", type(weight).__name__))
    return f"{weight:g}"


def _number(tensor: Any) -> float:
    return float(ops.convert_to_numpy(tensor))
