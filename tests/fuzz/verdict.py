"""Decides whether a case ended with a right answer, a clear error, or a fault.

- right: the answer equals that of an independent computation.
- clear error: the input is wrong, and a `ValueError` or `TypeError` explains it.
- unclear error: a fault.
- wrong answer: a fault. This includes any error for a valid input.
"""

import contextlib
import pathlib
import re
import traceback

import keras

import keras_dskd

OURS = str(pathlib.Path(keras_dskd.__file__).parent)
KERAS = str(pathlib.Path(keras.__file__).parent)

#: A clear message says what was received, what was expected, or what to do.
SAYS_WHAT = re.compile(
    r"received|expected|no loss reads|must |should |needs? |pass |use |name the|"
    r"name one|say which|did you mean|its layers are|missing|cannot |does not fit|"
    r"incompatible|not found|invalid|provide|unable to|unrecognized|ambiguous|"
    r"make sure",
    re.IGNORECASE,
)


class Refused(Exception):
    """The case ended with a clear error."""


class Fault(AssertionError):
    """The case ended with a fault of this `kind`."""

    kind = "wrong answer"


class Wrong(Fault):
    """A wrong answer, or an error for a valid input."""


class Unclear(Fault):
    """An error that does not explain what is wrong."""

    kind = "unclear error"


def answer(call, valid=None, like=None, says=""):
    """The value of `call()`; a clear error ends the case.

    Args:
        call: Calls the library.
        valid: Whether the input is valid. `True` if there must be an answer, `False`
            if there must be an error, `None` if both are acceptable.
        like: Does the same with Keras alone. If it raises the same error, the error
            counts as clear.
        says: Pattern that the error must match.
    """
    try:
        with whole_tracebacks():
            value = call()
    except Exception as error:
        clear = is_clear(error) or (like is not None and _same_error(like, error))
        if valid:
            raise Wrong(f"A valid case is refused: {told(error)}") from error
        if not clear:
            raise Unclear(told(error)) from error
        if not re.search(says, str(error)):
            raise Wrong(f"An error about something else: {told(error)}") from error
        raise Refused(told(error)) from error
    if valid is False:
        raise Wrong(f"No error where one is due: got {str(value)[:200]}")
    return value


def is_clear(error):
    """Whether an error is clear, and raised by this library or Keras."""
    if not isinstance(error, (ValueError, TypeError)):
        return False
    where, message = _origin(error)
    return where.startswith((OURS, KERAS)) and bool(SAYS_WHAT.search(message))


def told(error):
    """An error in one line: its type, place, and the start of its message."""
    where, message = _origin(error)
    name = type(error).__name__
    if where.startswith(OURS):
        place = where[len(OURS) - len("keras_dskd") :]
    else:
        place = "/".join(pathlib.Path(where).parts[-4:])
    return f"{name} of {place}: {' '.join(message.split())[:300]}"


def _origin(error):
    """The file that raised an error, and the message."""
    message = str(error)
    raised = traceback.extract_tb(error.__traceback__)
    where = raised[-1].filename if raised else ""
    # TensorFlow raises errors of compiled functions again, with a text traceback.
    retold = re.findall(r'File "([^"]+)"', message)
    if message.lstrip().startswith("in user code") and retold:
        where = retold[-1].replace("__autograph_generated_file", "")
    return where, message


def _same_error(like, error):
    try:
        like()
    except Exception as its_error:
        first, second = (_origin(e)[1].split("\n")[0] for e in (error, its_error))
        return type(its_error) is type(error) and first == second
    return False


@contextlib.contextmanager
def whole_tracebacks():
    """A context in which Keras and JAX do not shorten tracebacks."""
    by_keras = keras.config.is_traceback_filtering_enabled()
    keras.config.disable_traceback_filtering()
    with contextlib.ExitStack() as stack:
        if by_keras:
            stack.callback(keras.config.enable_traceback_filtering)
        if keras.backend.backend() == "jax":
            import jax

            by_jax = jax.config.jax_traceback_filtering
            jax.config.update("jax_traceback_filtering", "off")
            stack.callback(jax.config.update, "jax_traceback_filtering", by_jax)
        yield
