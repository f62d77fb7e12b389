"""Fixtures: seeds, and one line that says which backend runs."""

import gc
import importlib.metadata
import os
import zlib

import keras
import pytest

BACKENDS = ("torch", "jax", "tensorflow")
# Of the tests without a marker, one in so many runs on JAX, and one on TensorFlow.
ONE_IN = 6

# Compilation takes most of the time of JAX's tests. These flags make it four times as
# fast, and the compiled programs slower.
FAST_COMPILATION = (
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
)


def pytest_configure():
    # XLA aborts on a flag it does not know: use them only with a version that has all.
    if keras.backend.backend() == "jax" and (
        importlib.metadata.version("jaxlib").startswith("0.10.")
    ):
        given = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = " ".join([*FAST_COMPILATION, given])
    if keras.backend.backend() == "jax":
        import jax

        # On a GPU, JAX multiplies float32 matrices in TF32 by default.
        jax.config.update("jax_default_matmul_precision", "float32")


def pytest_report_header():
    return f"keras {keras.__version__}, backend {keras.backend.backend()}"


def pytest_collection_modifyitems(items):
    backend = keras.backend.backend()
    if os.environ.get("ALL_TESTS"):
        return
    for item in items:
        chosen = backends_of(item)
        if backend not in chosen:
            reason = f"runs on {' and '.join(chosen)}; ALL_TESTS=1 runs it here, too"
            item.add_marker(pytest.mark.skip(reason=reason))


def backends_of(item):
    """The backends that run a test. Its name and markers decide: they never change."""
    if any(map(item.get_closest_marker, ("every_backend", "skipif"))):
        # A test with a condition of its own may need one particular backend.
        return BACKENDS
    if item.get_closest_marker("backend_neutral"):
        return ("torch",)
    drawn = zlib.crc32(item.nodeid.encode()) % ONE_IN
    return {0: ("torch", "jax"), 1: ("torch", "tensorflow")}.get(drawn, ("torch",))


def pytest_sessionstart():
    # `clear_session` collects garbage after each test. Exclude the imported modules:
    # scanning them takes longer than most tests.
    keras.utils.set_random_seed(0)
    gc.freeze()
    # Tracing makes so many objects that Python would scan them all the time.
    gc.set_threshold(100_000, 20, 50)


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)
    yield
    keras.utils.clear_session()
    gc.freeze()
