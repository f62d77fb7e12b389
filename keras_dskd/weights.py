"""Weights of the terms: numbers, or functions of the training step."""

import math
import numbers

import keras
from keras import ops


def check_number(name, weight, most=math.inf):
    """Raises `ValueError` unless `weight` is a number in [0, most]."""
    is_number = isinstance(weight, numbers.Real) and not isinstance(weight, bool)
    try:
        value = float(weight) if is_number else -1.0
    except OverflowError:
        value = math.inf
    # What float32 cannot hold would be infinite in the step.
    if not 0 <= value <= min(most, 3e38):
        limit = f"between 0 and {most}" if math.isfinite(most) else ">= 0"
        raise ValueError(
            f"`{name}` must be a number {limit}. Received: {name}={weight!r}"
        )


def check_weights(weights, count):
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
    if not isinstance(weights, (list, tuple)):
        weights = [weights]
    if len(weights) != count:
        raise ValueError(
            "`distillation_loss_weights` must hold one weight for each of the "
            f"{count} distillation losses. Received {len(weights)}: {weights}"
        )
    for index, weight in enumerate(weights):
        if not callable(weight):
            check_number(f"distillation_loss_weights[{index}]", weight)
    return list(weights)


class TermWeights(keras.layers.Layer):
    """State of a distiller: the step, the student's weight and one weight a loss.

    Variables rather than Python numbers, since a compiled step would never see a
    number change; and not the optimizer's iterations, which a loss cannot read on
    JAX.
    """

    def __init__(self, student_weight, weights):
        super().__init__(name="loss_weights", trainable=False)
        self.step = self._state("step", (), "int32")
        self.student = self._state("student", (), "float32")
        self.losses_ = self._state("losses", (len(weights),), "float32")
        self.built = True
        self.set_student(student_weight)
        self.set_losses(weights)

    def _state(self, name, shape, dtype):
        return self.add_weight(
            name=name,
            shape=shape,
            dtype=dtype,
            initializer="zeros",
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
        )

    def set_student(self, weight):
        """Sets the weight of the student's own loss."""
        self.student_number = float(weight)
        self.student.assign(self.student_number)

    def set_losses(self, weights):
        """Sets the weights of the losses, checked before."""
        self._given = tuple(weights)
        self.losses_.assign([0.0 if callable(w) else float(w) for w in weights])

    @property
    def given(self):
        """The weights of the losses, as they were given."""
        return list(self._given)

    def at_step(self):
        """The weights of the losses at the present step, float32 scalars."""
        step = ops.convert_to_tensor(self.step)
        weights = [
            weight(step) if callable(weight) else self.losses_[index]
            for index, weight in enumerate(self._given)
        ]
        return [ops.cast(weight, "float32") for weight in weights]

    def weighted_sum(self, values):
        """Sum of the losses' values, each times its weight at the present step."""
        weighted = zip(self.at_step(), values, strict=True)
        return sum(weight * value for weight, value in weighted)

    def advance(self):
        """Counts a step."""
        self.step.assign(self.step + 1)

    def load_own_variables(self, store):
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


def serialize(weight):
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


def deserialize(config):
    """The inverse of `serialize`."""
    if isinstance(config, dict):
        return keras.saving.deserialize_keras_object(config)
    return config


class LossWeights(list):
    """A distiller's weights as a list; an assigned item reaches the compiled step."""

    def __init__(self, weights, assign):
        super().__init__(weights)
        self._assign = assign

    def __setitem__(self, index, weight):
        weights = list(self)
        weights[index] = weight
        self._assign(weights)
        super().__setitem__(index, weight)

    def _refuse(self, *args, **kwargs):
        raise TypeError(
            "There is one weight for each distillation loss: their number is fixed. "
            "Assign an item, or the whole list."
        )

    append = clear = extend = insert = pop = remove = reverse = sort = _refuse
    __delitem__ = __iadd__ = __imul__ = _refuse
