"""The candidates that `choose` trains by default."""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import keras

from keras_dskd.distiller.distiller import Distiller
from keras_dskd.internal.tasks import Task
from keras_dskd.losses import RegressionTargets
from keras_dskd.recipes import output_losses

#: Makes a distiller of the teacher and a new student.
Candidate: TypeAlias = Callable[[Any, keras.Model], Distiller]

ALONE = "student alone"
_TEMPERATURES = (1.0, 4.0)


def alone(teacher: Any, student: keras.Model, task: Task | None = None) -> Distiller:
    """The student without a teacher, on the data of the other candidates."""
    made = soft_targets(teacher, student, task)
    made.student_loss_weight = 1.0
    return made


def soft_targets(
    teacher: Any, student: keras.Model, task: Task | None = None
) -> Distiller:
    """Labels and the teacher's outputs, half and half."""
    return Distiller(teacher, student, output_losses(teacher, student, task))


def with_teacher(
    decided: Distiller, recommended: Candidate, task: Task | None = None
) -> dict[str, Candidate]:
    """The candidates that learn from the teacher, by name.

    Args:
        decided: A compiled distiller of `alone`: its losses are those of the task.
        recommended: The recipe, with all its settings.
        task: Passed to the soft targets.
    """
    has_temperature = [
        not isinstance(loss, RegressionTargets) for loss in decided.distillation_losses
    ]
    outputs = functools.partial(soft_targets, task=task)
    if not any(has_temperature):
        return {"outputs": outputs, "recommended": recommended}
    return {
        f"{name}, T = {temperature:g}": functools.partial(
            _at_temperature, recipe, has_temperature, temperature
        )
        for name, recipe in (("soft targets", outputs), ("recommended", recommended))
        for temperature in _TEMPERATURES
    }


def _at_temperature(
    recipe: Candidate,
    has_temperature: list[bool],
    temperature: float,
    teacher: Any,
    student: keras.Model,
) -> Distiller:
    """A recipe's distiller, with a temperature for each output that takes one.

    Args:
        recipe: Its first losses are those of the outputs.
        has_temperature: Whether it has a temperature, for the loss of each output.
        temperature: The temperature.
        teacher: The teacher.
        student: The student.
    """
    made = recipe(teacher, student)
    for loss, has in zip(made.distillation_losses, has_temperature, strict=False):
        if has:
            loss.temperature = temperature
    return made
