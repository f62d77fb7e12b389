"""The output loss that fits a task, chosen at once or when a distiller is compiled."""

from typing import Any

import keras

from keras_dskd.features.output_kind import OutputKind, output_kinds
from keras_dskd.features.outputs import symbolic_outputs
from keras_dskd.internal.schedules import (
    check_temperature_word,
    serialize_temperature,
)
from keras_dskd.internal.tasks import TASKS, Task
from keras_dskd.internal.types import Config, Temperature, Tensor
from keras_dskd.losses.base import LayerLoss
from keras_dskd.losses.binary_soft_targets import BinarySoftTargets
from keras_dskd.losses.output_loss import OutputLoss
from keras_dskd.losses.regression_targets import RegressionTargets
from keras_dskd.losses.soft_targets import SoftTargets
from keras_dskd.ops.rows import channel_axis

#: What "auto" is for labels that do not exclude one another.
_OF_LABELS = 4.0
_TASK_OF_KIND: dict[OutputKind, Task] = {"softmax": "multiclass", "sigmoid": "binary"}


def output_loss(
    teacher: keras.Model,
    student: keras.Model,
    task: Task | None = None,
    layers: tuple[str | None, str | None] = (None, None),
    temperature: Temperature = "auto",
) -> OutputLoss | LayerLoss:
    """The loss that compares one output of both models: it fits the task.

    Args:
        teacher: The teacher.
        student: The student.
        task: The task. With `None`, softmaxes and sigmoids in the models' graphs
            decide, or else the loss that the distiller is compiled with.
        layers: Names of the teacher's and the student's layer. `None` for the output.
        temperature: Temperature of the loss.

    Returns:
        `SoftTargets`, `BinarySoftTargets` or `RegressionTargets`; `OutputTargets` if
        the task is not decided yet.

    Raises:
        ValueError: If the models' outputs contradict each other, or the task, or a
            temperature is given for a regression.
    """
    axis = _class_axis(student, layers[1])
    targets = OutputTargets(*layers, axis=axis, temperature=temperature)
    seen: dict[Task, str] = {} if task is None else {task: f"task={task!r}"}
    for role, model in (("teacher", teacher), ("student", student)):
        kinds = set(output_kinds(model, layers[role == "student"]))
        kind = kinds.pop() if len(kinds) == 1 else None
        targets.from_logits[role] = kind not in _TASK_OF_KIND
        if kind in _TASK_OF_KIND and task != "regression":
            reason = f"the {role} {model.name!r} ends in a {kind}"
            seen.setdefault(_TASK_OF_KIND[kind], reason)
    if len(seen) > 1:
        raise ValueError(
            "The outputs contradict one another: " + ", and ".join(seen.values()) + ". "
            "Both models need outputs of one kind, and of the kind of the task."
        )
    return targets.for_task(next(iter(seen))) if seen else targets


@keras.saving.register_keras_serializable(package="keras_dskd")
class OutputTargets(LayerLoss):
    """Stands for the loss of an output until `compile` tells the task.

    Args:
        teacher_layer_name: Teacher layer to read. `None` for the model's output.
        student_layer_name: Student layer to read. `None` for the model's output.
        axis: Axis of the classes.
        from_logits: For each role, whether the output is logits.
        temperature: Of the loss to come; assign it before or after `compile`.
    """

    name = "output_targets"

    def __init__(
        self,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        axis: int = -1,
        from_logits: dict[str, bool] | None = None,
        temperature: Temperature = "auto",
    ) -> None:
        check_temperature_word(temperature)
        super().__init__(teacher_layer_name, student_layer_name)
        self.axis = axis
        self.from_logits = from_logits or {"teacher": True, "student": True}
        self.temperature: Any = temperature

    def for_task(self, task: Task) -> OutputLoss:
        """The loss for a task.

        Raises:
            ValueError: If it has no temperature, and one was assigned.
        """
        layers = self.teacher_layer_name or None, self.student_layer_name
        from_logits = self.from_logits["teacher"], self.from_logits["student"]
        if task == "regression":
            if not isinstance(self.temperature, str):
                raise ValueError(
                    "RegressionTargets has no temperature. Received: "
                    f"temperature={self.temperature!r}. If other outputs are not "
                    "regressions, set `temperature` of their losses in "
                    "`distiller.distillation_losses`."
                )
            return RegressionTargets(*layers)
        if task == "binary":
            given = self.temperature
            temperature = _OF_LABELS if isinstance(given, str) else given
            return BinarySoftTargets(temperature, *layers, *from_logits)
        return SoftTargets(self.temperature, *layers, *from_logits, axis=self.axis)

    def compute_loss(
        self,
        teacher_outputs: Any,
        student_outputs: Any,
        labels: Any = None,
        **kwargs: Any,
    ) -> Tensor:
        """Raise `ValueError`: the task is not known yet."""
        raise ValueError(
            "The recipe does not know the task yet. Compile the distiller, or pass "
            f"task=..., one of {TASKS}, to the recipe."
        )

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "axis": self.axis,
            "from_logits": self.from_logits,
            "temperature": serialize_temperature(self.temperature),
        }


def _class_axis(model: keras.Model, layer_name: str | None) -> int:
    outputs = symbolic_outputs(model, layer_name)
    if outputs is None or keras.tree.is_nested(outputs):
        return -1
    rank = len(outputs.shape)
    return -1 if channel_axis(rank) == rank - 1 else channel_axis(rank)
