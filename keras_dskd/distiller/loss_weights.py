"""Weights of the terms: numbers, or functions of the training step."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

import keras
from keras import ops

from keras_dskd.internal.types import Config, Tensor, Weight
from keras_dskd.ops.checks import check_number


def check_weights(
    weights: Weight | Sequence[Weight] | None, count: int
) -> list[Weight]:
    """One weight a loss, as a list.

    Args:
        weights: `None` (1 each), one weight for a single loss, or a list.
        count: Number of losses.

    Raises:
        ValueError: If the number of weights is another, or one is neither callable
            nor a number that is finite and not negative.
    """
    if weights is None:
        return [1.0] * count
    if hasattr(weights, "tolist"):
        weights = weights.tolist()  # An array.
    given: list[Any] = [weights]
    if isinstance(weights, (list, tuple)):
        given = list(weights)
    if len(given) != count:
        raise ValueError(
            "`distillation_loss_weights` must hold one weight for each of the "
            f"{count} distillation losses. Received {len(given)}: {given}"
        )
    for index, weight in enumerate(given):
        if not callable(weight):
            check_number(f"distillation_loss_weights[{index}]", weight)
    return given


class TermWeights(keras.layers.Layer):
    """State of a distiller: the step, the student's weight and one weight a loss.

    Variables rather than Python numbers, since a compiled step would never see a
    number change; and not the optimizer's iterations, which a loss cannot read on
    JAX.
    """

    def __init__(self, student_weight: float, weights: Sequence[Weight]) -> None:
        super().__init__(name="loss_weights", trainable=False)
        self.step = self._state("step", (), "int32")
        self.student = self._state("student", (), "float32")
        self.losses_ = self._state("losses", (len(weights),), "float32")
        self.built = True
        self.set_student(student_weight)
        self.set_losses(weights)

    def _state(self, name: str, shape: tuple[int, ...], dtype: str) -> keras.Variable:
        return self.add_weight(
            name=name,
            shape=shape,
            dtype=dtype,
            initializer="zeros",
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
        )

    def set_student(self, weight: float) -> None:
        """Sets the weight of the student's own loss."""
        self.student_number = float(weight)
        self.student.assign(self.student_number)

    def set_losses(self, weights: Sequence[Weight]) -> None:
        """Sets the weights of the losses, checked before."""
        self._given = tuple(weights)
        self.losses_.assign([0.0 if callable(w) else float(w) for w in weights])

    @property
    def given(self) -> list[Weight]:
        """The weights of the losses, as they were given."""
        return list(self._given)

    def at_step(self) -> list[Tensor]:
        """The weights of the losses at the present step, float32 scalars."""
        step = ops.convert_to_tensor(self.step)
        weights = [
            weight(step) if callable(weight) else self.losses_[index]
            for index, weight in enumerate(self._given)
        ]
        return [ops.cast(weight, "float32") for weight in weights]

    def weighted_sum(self, values: Sequence[Tensor]) -> Tensor:
        """Sum of the losses' values, each times its weight at the present step."""
        weighted = zip(self.at_step(), values, strict=True)
        return sum(weight * value for weight, value in weighted)

    def advance(self) -> None:
        """Counts a step."""
        self.step.assign(self.step + 1)

    def load_own_variables(self, store: Any) -> None:
        """Loads the state, and takes the loaded numbers over."""
        super().load_own_variables(store)
        loaded = ops.convert_to_numpy(self.losses_)
        self._given = tuple(
            weight
            if callable(weight) or loaded[index] == loaded.dtype.type(weight)
            else float(loaded[index])
            for index, weight in enumerate(self._given)
        )
        student = ops.convert_to_numpy(self.student)
        if student != student.dtype.type(self.student_number):
            self.student_number = float(student)


def serialize(weight: Weight) -> float | Config:
    """A weight as plain data.

    Raises:
        ValueError: If it is a function that cannot be loaded again.
    """
    if not callable(weight):
        return float(weight)
    if getattr(weight, "__name__", None) == "<lambda>":
        raise ValueError(
            "A lambda as a weight cannot be saved. Use a "
            "`keras.optimizers.schedules.LearningRateSchedule`, or a function with "
            "the decorator `keras.saving.register_keras_serializable`."
        )
    return keras.saving.serialize_keras_object(weight)


def deserialize(config: float | Config) -> Weight:
    """The inverse of `serialize`."""
    if isinstance(config, dict):
        return keras.saving.deserialize_keras_object(config)
    return config


class LossWeights(list[Weight]):
    """A distiller's weights as a list; an assigned item reaches the compiled step."""

    def __init__(
        self, weights: Iterable[Weight], assign: Callable[[list[Weight]], None]
    ) -> None:
        super().__init__(weights)
        self._assign = assign

    def __setitem__(self, index: Any, weight: Any) -> None:
        weights = list(self)
        weights[index] = weight
        self._assign(weights)
        super().__setitem__(index, weight)

    def _refuse(self, *args: object, **kwargs: object) -> NoReturn:
        raise TypeError(
            "There is one weight for each distillation loss: their number is fixed. "
            "Assign an item, or the whole list."
        )

    append = clear = extend = insert = pop = remove = reverse = sort = _refuse
    __delitem__ = __iadd__ = __imul__ = _refuse
