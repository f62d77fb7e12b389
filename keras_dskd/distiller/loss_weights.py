"""Weights of the losses: numbers, or functions of the training step."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

import keras
from keras import ops

from keras_dskd.distiller.loss_term import LossTerm
from keras_dskd.internal import trainer_state
from keras_dskd.internal.types import Tensor, Weight
from keras_dskd.ops.checks import check_number


def check_weights(
    weights: Weight | Sequence[Weight] | None, count: int
) -> list[Weight]:
    """The weights as a list, one per loss.

    Args:
        weights: `None` (1 each), a single weight if there is one loss, or a list.
        count: Number of losses.

    Raises:
        ValueError: If there is not one weight per loss, or a weight is neither callable
            nor a finite number >= 0.
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


def check_student_weight(weight: Weight) -> None:
    """Raises `ValueError` unless it is callable or a number between 0 and 1."""
    if not callable(weight):
        check_number("student_loss_weight", weight, most=1)


class LossWeightState(keras.layers.Layer):
    """State of a distiller: the step, the student's weight and one weight per loss.

    These are variables, because a compiled step does not see a Python number change.
    The step is counted here, because `compute_loss` cannot read
    `optimizer.iterations` on JAX.

    Args:
        student_weight: Weight of the student's own loss.
        terms: The losses. Setting weights also sets their `weight`.
        weights: One weight per loss.
    """

    def __init__(
        self,
        student_weight: Weight,
        terms: Sequence[LossTerm],
        weights: Sequence[Weight],
    ) -> None:
        super().__init__(name="loss_weights", trainable=False)
        self.terms = tuple(terms)
        self.step = self._state("step", (), "int32")
        self.student = self._state("student", (), "float32")
        self.values = self._state("losses", (len(weights),), "float32")
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

    def set_student(self, weight: Weight) -> None:
        """Sets the weight of the student's own loss."""
        self.student_given = weight if callable(weight) else float(weight)
        self.student.assign(0.0 if callable(weight) else float(weight))

    def student_at_step(self) -> Tensor:
        """The weight of the student's own loss at the present step: float32 scalar."""
        weight: Any = self.student_given
        if not callable(weight):
            return ops.convert_to_tensor(self.student)
        return ops.cast(weight(ops.convert_to_tensor(self.step)), "float32")

    def set_losses(self, weights: Sequence[Weight]) -> None:
        """Sets the weights of the losses, which `check_weights` has checked."""
        for term, weight in zip(self.terms, weights, strict=True):
            term.weight = weight
        self.values.assign([0.0 if callable(w) else float(w) for w in weights])

    @property
    def given(self) -> list[Weight]:
        """The weights of the losses, as the user gave them."""
        return [term.weight for term in self.terms]

    def at_step(self) -> list[Tensor]:
        """The weights of the losses at the present step, float32 scalars."""
        step = ops.convert_to_tensor(self.step)
        weights = [
            weight(step) if callable(weight) else self.values[index]
            for index, weight in enumerate(self.given)
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
        """Loads the variables, and updates the Python numbers that mirror them."""
        super().load_own_variables(store)
        loaded = ops.convert_to_numpy(self.values)
        for term, value in zip(self.terms, loaded, strict=True):
            # A number that float32 rounds stays as it was given.
            if not callable(term.weight) and value != value.dtype.type(term.weight):
                term.weight = float(value)
        student = ops.convert_to_numpy(self.student)
        given: Any = self.student_given
        if not callable(given) and student != student.dtype.type(given):
            self.student_given = float(student)


class LossWeights(list[Weight]):
    """A distiller's weights as a list. Assigning an item affects compiled steps."""

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
            "The number of weights is fixed: one per distillation loss. Assign an item "
            "or the whole list."
        )

    append = clear = extend = insert = pop = remove = reverse = sort = _refuse
    __delitem__ = __iadd__ = __imul__ = _refuse


class WeightsLosses(keras.Model):
    """A model whose loss weights can change at any time, even after compilation."""

    loss_terms: tuple[LossTerm, ...]
    _term_weights: LossWeightState

    @property
    def distillation_loss_weights(self) -> list[Weight]:
        """The weights, one per loss. Assign the list or an item at any time."""
        return LossWeights(self._term_weights.given, self._set_loss_weights)

    @distillation_loss_weights.setter
    def distillation_loss_weights(
        self, loss_weights: Weight | Sequence[Weight] | None
    ) -> None:
        self._set_loss_weights(loss_weights)

    def _set_loss_weights(self, loss_weights: Weight | Sequence[Weight] | None) -> None:
        given = check_weights(loss_weights, len(self.loss_terms))
        previous = self._term_weights.given
        trainer_state.sync(self)
        self._term_weights.set_losses(given)
        if list(filter(callable, previous)) != list(filter(callable, given)):
            trainer_state.compile_step_again(self)

    @property
    def student_loss_weight(self) -> Weight:
        """Weight of the student's own loss: a number, or a function of the step.

        Between 0 and 1. Assign it at any time.
        """
        return self._term_weights.student_given

    @student_loss_weight.setter
    def student_loss_weight(self, weight: Weight) -> None:
        check_student_weight(weight)
        previous = self.student_loss_weight
        trainer_state.sync(self)
        self._term_weights.set_student(weight)
        # A compiled step holds a schedule. At 0 and at 1, its total lacks a part.
        is_held = callable(previous) or callable(weight)
        if previous != weight and (is_held or {previous, weight} & {0.0, 1.0}):
            trainer_state.compile_step_again(self)

    def _student_weighs(self, number: float) -> bool:
        """Whether the weight of the student's own loss is this number, at all steps."""
        weight = self.student_loss_weight
        return not callable(weight) and weight == number
