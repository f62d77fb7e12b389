"""A training with deterministic kernels gives the same bits each time."""

import os

import interpreter


def test_two_trainings_from_one_seed_are_equal_bit_for_bit(tmp_path):
    # Let the second training reuse what the first has compiled.
    compiled = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    environment = {k: os.environ.get(k, v) for k, v in compiled.items()}
    # Programs must be optimized, as they are for users: see conftest.py.
    environment["XLA_FLAGS"] = ""
    program = interpreter.TESTS / "process" / "deterministic.py"
    printed = interpreter.run(program, environment=environment)
    first, second = printed.split()[-2:]
    assert first == second
