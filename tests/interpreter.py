"""Runs programs of the tests in another Python process."""

import os
import subprocess
import sys
from pathlib import Path

import keras

TESTS = Path(__file__).parent
LIGHT = TESTS / "light.py"


def start(*arguments, backend=None, is_light=True, **options):
    """Starts Python with the package and the support modules of the tests.

    Args:
        *arguments: A program and its arguments, or `"-c"` and code.
        backend: The backend of Keras. Defaults to that of this process.
        is_light: Whether to hide packages that Keras imports where it finds them; see
            `light.py`.
        **options: Options of `subprocess.Popen`; `environment` adds variables.
    """
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend or keras.backend.backend(),
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
        **options.pop("environment", {}),
    }
    return subprocess.Popen(
        [sys.executable, *([LIGHT] if is_light else []), *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finish(process, exit_status=0):
    """Waits for a process, checks its exit status, and returns its output."""
    printed, errors = process.communicate()
    assert process.returncode == exit_status, errors
    return printed


def run(*arguments, exit_status=0, **options):
    """Starts a process and waits for it; see `start` and `finish`."""
    return finish(start(*arguments, **options), exit_status)
