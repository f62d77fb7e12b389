"""Share the intermediate results of several losses within a step, on torch.

The compilers of JAX and TensorFlow merge equal computations by themselves. There, a
cache would even be wrong: a tensor made in one branch of a graph must not be used
outside of it.

This is a cache around functions of tensors, not an object with cached properties,
because losses receive plain tensors through Keras's `DistillationLoss` interface.
"""

import contextlib
import functools
import inspect
import numbers
import threading
from collections.abc import Callable, Hashable, Iterator
from typing import ParamSpec

import keras
from keras import ops

from keras_dskd.internal.types import Tensor

Arguments = ParamSpec("Arguments")

_thread = threading.local()


@contextlib.contextmanager
def sharing() -> Iterator[None]:
    """A context in which `shared` functions run once for equal arguments, on torch.

    On other backends it has no effect. Results are kept until the outermost context
    ends. Each thread has its own.
    """
    is_needed = keras.backend.backend() == "torch" and _results() is None
    if not is_needed:
        yield
        return
    _thread.results = {}
    try:
        yield
    finally:
        _thread.results = None


def shared(function: Callable[Arguments, Tensor]) -> Callable[Arguments, Tensor]:
    """Decorate a pure function so that a `sharing` context keeps its results.

    Tensors count as equal if they are the same object, other arguments if their values
    are equal. If an argument has gradients and the result has none (as under
    `torch.no_grad`), the result is not kept.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapper(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Tensor:
        results = _results()
        if results is None:
            return function(*args, **kwargs)
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        key = (function, *map(_key, given.args), *map(_key, given.kwargs.values()))
        if key in results:
            return results[key][0]
        result = function(*args, **kwargs)
        if _has_gradient(result) or not any(map(_has_gradient, given.args)):
            # Keep the arguments alive, so that no new tensor gets the same id.
            results[key] = result, given
        return result

    return wrapper


@shared
def detached(tensor: Tensor) -> Tensor:
    """Stop the gradient of a tensor. Returns an array unchanged."""
    return ops.stop_gradient(tensor) if ops.is_tensor(tensor) else tensor


def _results() -> dict[Hashable, tuple[Tensor, object]] | None:
    """Results that the current thread keeps, or `None` outside of a context."""
    return getattr(_thread, "results", None)


def _has_gradient(value: object) -> bool:
    return getattr(value, "requires_grad", False)


def _key(argument: object) -> tuple[type, Hashable] | int:
    if argument is None or isinstance(argument, (str, numbers.Number)):
        return type(argument), argument
    return id(argument)
