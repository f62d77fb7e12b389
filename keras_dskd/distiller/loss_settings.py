"""Settings of losses that change in training, such as a temperature."""

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_dskd.distiller.loss_term import LossTerm
from keras_dskd.internal.types import Tensor


def at_step(term: LossTerm, step: Tensor | None) -> LossTerm:
    """The term, with the temperature of this step if its loss has a schedule.

    The loss is copied: replicas share it, and each has its own tensor.
    """
    schedule = getattr(term.loss, "temperature", None)
    if not callable(schedule):
        return term
    step = ops.zeros((), "int32") if step is None else ops.convert_to_tensor(step)
    present = copy.copy(term)
    present.loss = copy.copy(term.loss)
    present.loss.temperature = ops.cast(schedule(step), "float32")
    return present


def recompiling(
    function: Callable[..., Any],
    losses: Sequence[keras.distillation.DistillationLoss],
    recompiled: Callable[[], Callable[..., Any]],
) -> Callable[..., Any]:
    """A compiled step that is compiled again if an attribute of a loss has changed.

    Args:
        function: The step.
        losses: The losses that it holds.
        recompiled: Compiles the step again and returns it.
    """
    # torch reads attributes in each step, and `torch.compile` guards them.
    if keras.backend.backend() == "torch" or hasattr(function, "recompiles"):
        return function
    compiled_with: list[dict[str, Any]] | None = None
    steps = [function]

    @functools.wraps(function)
    def checked(*args: Any) -> Any:
        nonlocal compiled_with
        if compiled_with is not None and compiled_with != _settings(losses):
            # While the old step exists, JAX takes the new one for the same.
            steps.clear()
            return recompiled()(*args)
        result = steps[0](*args)
        # After the step: a loss may change its own attributes while it is compiled.
        compiled_with = _settings(losses)
        return result

    del checked.__wrapped__, function
    checked.recompiles = True  # type: ignore[attr-defined]  # A mark on a function.
    return checked


def _settings(
    losses: Sequence[keras.distillation.DistillationLoss],
) -> list[dict[str, Any]]:
    plain = (bool, int, float, str, type(None))
    return [
        {
            name: value if isinstance(value, plain) else id(value)
            for name, value in vars(loss).items()
        }
        for loss in losses
    ]
