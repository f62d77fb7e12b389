"""What a model predicts, as told by the loss that it is trained with."""

from typing import Any, Literal, TypeAlias, get_args

import keras

#: One of several classes, independent labels (or a single one), or numbers.
Task: TypeAlias = Literal["multiclass", "binary", "regression"]
TASKS: tuple[Task, ...] = get_args(Task)

_TASK_OF_LOSS: dict[Task, tuple[str, ...]] = {
    "multiclass": (
        "CategoricalCrossentropy",
        "CategoricalFocalCrossentropy",
        "CategoricalGeneralizedCrossEntropy",
        "CategoricalHinge",
        "KLDivergence",
        "SparseCategoricalCrossentropy",
    ),
    "binary": ("BinaryCrossentropy", "BinaryFocalCrossentropy"),
    "regression": (
        "Huber",
        "LogCosh",
        "MeanAbsoluteError",
        "MeanAbsolutePercentageError",
        "MeanSquaredError",
        "MeanSquaredLogarithmicError",
        "Poisson",
    ),
}
#: Losses with the argument `from_logits`.
_FROM_LOGITS = (
    "BinaryCrossentropy",
    "BinaryFocalCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalFocalCrossentropy",
    "SparseCategoricalCrossentropy",
)


def task_of(loss: Any) -> Task | None:
    """The task that a loss of `keras.losses` is for.

    Args:
        loss: What `compile` takes as the loss of one output: a `keras.losses.Loss`, a
            function, or a name.

    Returns:
        `None` for any other loss, which may be for any task.
    """
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    for task, names in _TASK_OF_LOSS.items():
        # Some are missing in older versions of Keras.
        classes = [getattr(keras.losses, name, None) for name in names]
        for known in filter(None, classes):
            if isinstance(loss, known) or loss is known().fn:
                return task
    return None


def takes_logits(loss: Any) -> bool | None:
    """Whether a cross-entropy of `keras.losses` takes logits.

    Args:
        loss: See `task_of`.

    Returns:
        `None` for any other loss.
    """
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    for name in _FROM_LOGITS:
        known = getattr(keras.losses, name, None)
        if known is not None and isinstance(loss, known):
            return bool(loss.get_config()["from_logits"])
        if known is not None and loss is known().fn:
            return False
    return None


def check_task(task: object) -> None:
    """Raise `ValueError` unless `task` is one of the tasks, or `None`."""
    if task is not None and task not in TASKS:
        raise ValueError(
            f"`task` must be one of {TASKS}, or None. Received: task={task!r}"
        )


def loss_name(loss: Any) -> str:
    """A compiled loss, for messages."""
    return str(
        loss
        if isinstance(loss, str) or loss is None
        else getattr(loss, "__name__", type(loss).__name__)
    )
