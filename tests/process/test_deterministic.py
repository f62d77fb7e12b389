"""A training with deterministic kernels is the same each time, to the bit."""

import os
import subprocess
import sys
from pathlib import Path

import keras


def test_two_trainings_from_one_seed_are_equal_bit_for_bit(tmp_path):
    tests = Path(__file__).parents[1]
    result = subprocess.run(
        [sys.executable, tests / "process" / "deterministic.py"],
        env={
            # What the first training compiled is the second's.
            "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            **os.environ,
            "KERAS_BACKEND": keras.backend.backend(),
            "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)]),
        },
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    first, second = result.stdout.split()[-2:]
    assert first == second
