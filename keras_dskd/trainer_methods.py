"""`fit`, `evaluate` and `predict`, with the arguments of Keras's and their types."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import keras

from keras_dskd.types import Nested


class Fit(Protocol):
    """`keras.Model.fit`, bound."""

    def __call__(
        self,
        x: Nested = None,
        y: Nested = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: int | str = "auto",
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        validation_split: float = 0.0,
        validation_data: Nested = None,
        shuffle: bool = True,
        class_weight: dict[int, float] | None = None,
        sample_weight: Nested = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int = 1,
    ) -> keras.callbacks.History: ...


class Evaluate(Protocol):
    """`keras.Model.evaluate`, bound."""

    def __call__(
        self,
        x: Nested = None,
        y: Nested = None,
        batch_size: int | None = None,
        verbose: int | str = "auto",
        sample_weight: Nested = None,
        steps: int | None = None,
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        return_dict: bool = False,
        **kwargs: Any,
    ) -> Any: ...


class Predict(Protocol):
    """`keras.Model.predict`, bound."""

    def __call__(
        self,
        x: Nested,
        batch_size: int | None = None,
        verbose: int | str = "auto",
        steps: int | None = None,
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
    ) -> Nested: ...


def _takes_what(method: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """Decorator: `help` and notebooks show the arguments of the method."""

    def decorated(function: Any) -> Any:
        function.__signature__ = inspect.signature(method)
        return function

    return decorated


# What is decorated passes its arguments to the method of that name.
like_fit: Callable[[Callable[..., Any]], Fit] = _takes_what(keras.Model.fit)
like_evaluate: Callable[[Callable[..., Any]], Evaluate] = _takes_what(
    keras.Model.evaluate
)
like_predict: Callable[[Callable[..., Any]], Predict] = _takes_what(keras.Model.predict)
