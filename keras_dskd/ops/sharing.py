"""What several terms of a step need is made once, on torch.

The compilers of JAX and TensorFlow find what is computed twice; and there a tensor that
is made in a branch of a graph must not be used outside of it.
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

Given = ParamSpec("Given")

_here = threading.local()


@contextlib.contextmanager
def sharing() -> Iterator[None]:
    """A context in which functions marked as `shared` run once for equal arguments.

    On torch, that is; elsewhere it does nothing. Within another one it adds nothing:
    what was made is kept until the outer one ends.
    """
    if keras.backend.backend() != "torch" or getattr(_here, "made", None) is not None:
        yield
        return
    _here.made = {}
    try:
        yield
    finally:
        _here.made = None


def shared(function: Callable[Given, Tensor]) -> Callable[Given, Tensor]:
    """Decorator of a pure function whose result a `sharing` context keeps.

    Tensors are equal if they are one object, plain arguments if they are equal. What
    was made without gradients of arguments that have them, as under `torch.no_grad`, is
    not kept.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def once(*args: Given.args, **kwargs: Given.kwargs) -> Tensor:
        made = getattr(_here, "made", None)
        if made is None:
            return function(*args, **kwargs)
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        key = (function, *map(_key, given.args), *map(_key, given.kwargs.values()))
        if key in made:
            return made[key][0]
        result = function(*args, **kwargs)
        if _has_gradient(result) or not any(map(_has_gradient, given.args)):
            # The arguments are kept, lest another tensor get the id of a dead one.
            made[key] = result, given
        return result

    return once


@shared
def detached(tensor: Tensor) -> Tensor:
    """The tensor, through which no gradient flows. An array passes: it has none."""
    return ops.stop_gradient(tensor) if ops.is_tensor(tensor) else tensor


def _has_gradient(value: object) -> bool:
    return getattr(value, "requires_grad", False)


def _key(argument: object) -> tuple[type, Hashable] | int:
    if argument is None or isinstance(argument, (str, numbers.Number)):
        return type(argument), argument
    return id(argument)
