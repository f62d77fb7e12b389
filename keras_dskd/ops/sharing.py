"""What several terms of a step need is made once.

Compilers find what is computed twice; an eager backend does it twice.
"""

import contextlib
import functools
import inspect
import numbers
import threading

from keras import ops

_here = threading.local()


@contextlib.contextmanager
def sharing():
    """A context in which functions marked as `shared` run once for equal arguments.

    Within another one it adds nothing: what was made is kept until the outer one ends.
    """
    if getattr(_here, "made", None) is not None:
        yield
        return
    _here.made = {}
    try:
        yield
    finally:
        _here.made = None


def shared(function):
    """Decorator of a pure function whose result a `sharing` context keeps.

    Tensors are equal if they are one object, plain arguments if they are equal.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def once(*args, **kwargs):
        made = getattr(_here, "made", None)
        if made is None:
            return function(*args, **kwargs)
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        key = (function, *map(_key, given.args), *map(_key, given.kwargs.values()))
        if key not in made:
            # The arguments are kept, lest another tensor get the id of a dead one.
            made[key] = function(*args, **kwargs), given
        return made[key][0]

    return once


@shared
def detached(tensor):
    """The tensor, through which no gradient flows. An array passes: it has none."""
    return ops.stop_gradient(tensor) if ops.is_tensor(tensor) else tensor


def _key(argument):
    if argument is None or isinstance(argument, (str, numbers.Number)):
        return type(argument), argument
    return id(argument)
