"""Interrupts, such as Ctrl-C, that wait for what must not be cut in two."""

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """A context at whose end an interrupt is raised that came in its midst."""
    handler = signal.getsignal(signal.SIGINT)
    # Python calls handlers in the main thread alone.
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or not callable(handler):
        yield
        return
    came = []
    signal.signal(signal.SIGINT, lambda *args: came.append(args))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if came:
        handler(*came[0])
