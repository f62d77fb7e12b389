"""What counts as a right answer, as a clear error, and as a fault.

A case ends in one of four ways. "right": the library answered, and the answer is that
of an independent computation. "clear error": what came is wrong, and a `ValueError` or
`TypeError` says so in words. "unclear error" and "wrong answer" are faults; a valid
case that is refused, however clearly, is a wrong answer too.
"""

import contextlib
import pathlib
import re
import traceback

import keras

import keras_dskd

OURS = str(pathlib.Path(keras_dskd.__file__).parent)
KERAS = str(pathlib.Path(keras.__file__).parent)

#: A message says what came, what was expected, or what to do.
SAYS_WHAT = re.compile(
    r"received|expected|no loss reads|must |should |needs |pass |use |name the|"
    r"say which|did you mean|its layers are|missing|cannot |does not fit|incompatible|"
    r"not found|invalid|provide|unable to|unrecognized|ambiguous|make sure",
    re.IGNORECASE,
)


class Refused(Exception):
    """The case ended in a clear error."""


class Fault(AssertionError):
    """The case ended as it must not. `kind` says how."""

    kind = "wrong answer"


class Wrong(Fault):
    """An answer that is not right, or an error where there is a right answer."""


class Unclear(Fault):
    """An error that does not say what is wrong."""

    kind = "unclear error"


def answer(call, valid=None, like=None, says=""):
    """What `call()` returns; a clear error ends the case.

    Args:
        call: Calls the library.
        valid: Whether there is a right answer: `True` if an error is wrong, `False`
            if an answer is, `None` where both will do.
        like: Does the same with Keras alone. An error that it raises too, in the
            same words, is Keras's to make clear.
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
    """Whether an error is a clear one, of this library or of Keras."""
    if not isinstance(error, (ValueError, TypeError)):
        return False
    where, message = _origin(error)
    return where.startswith((OURS, KERAS)) and bool(SAYS_WHAT.search(message))


def told(error):
    """An error in one line: its type, where it was raised, how its message begins."""
    where, message = _origin(error)
    name = type(error).__name__
    if where.startswith(OURS):
        place = where[len(OURS) - len("keras_dskd") :]
    else:
        place = "/".join(pathlib.Path(where).parts[-4:])
    return f"{name} of {place}: {' '.join(message.split())[:300]}"


def _origin(error):
    """File that raised an error, and the error's own message."""
    message = str(error)
    raised = traceback.extract_tb(error.__traceback__)
    where = raised[-1].filename if raised else ""
    # TensorFlow retells errors of compiled functions, with their traceback as text.
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
    """Lets an error tell where it was raised, which Keras and JAX hide."""
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
