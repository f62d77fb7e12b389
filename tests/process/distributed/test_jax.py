"""`keras.distribution` on JAX trains like one device with the whole batch."""

import json
import socket
from pathlib import Path

import interpreter
import keras
import numpy as np
import pytest
from process.distributed import replicated

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="keras.distribution is tested on JAX"
)
PROGRAM = Path(__file__).with_name("jax_program.py")
TRAININGS = [
    *(("8 devices", kind) for kind in replicated.LOSSES),
    ("whole batches", "samples"),
    ("sharded", "pairs"),
]


def start(*arguments):
    environment = {"JAX_PLATFORMS": "cpu"}
    return interpreter.start(PROGRAM, *arguments, environment=environment)


def finish(program):
    try:
        _, errors = program.communicate(timeout=600)
    finally:
        program.kill()
    assert program.returncode == 0, errors


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("jax")
    finish(start(path))
    return path


@pytest.fixture(scope="module")
def facts(folder):
    return json.loads((folder / "facts.json").read_text())


def check_same_training(folder, engine, kind):
    steps = replicated.load(folder / f"{engine} {kind}.npz")
    expected = replicated.load(folder / f"one device {kind}.npz")[: len(steps)]
    assert len(steps) >= replicated.STEPS - 1
    replicated.check_same(steps, expected)


@pytest.mark.parametrize("engine, kind", TRAININGS)
def test_each_step_equals_that_of_one_device(engine, kind, folder):
    check_same_training(folder, engine, kind)


def test_kernels_stay_divided(facts):
    """Over 2 devices. Momentum is divided like its weights."""
    expected = {
        "teacher": {
            "early/kernel": [3, 3, 2, 3],
            "conv2d/kernel": [2, 2, 6, 4],
            "dense/kernel": [4, 3],
        },
        "optimizer": {"sgd/early_kernel_momentum": [3, 3, 1, 2]},
    }
    uses = ["training", "interrupted evaluate", "interrupted predict"]
    assert list(facts["shards"]) == [*uses, "loaded model", "loaded weights"]
    for use, found in facts["shards"].items():
        assert found == expected, use


def test_divided_kernels_give_the_same_results(folder):
    with (
        np.load(folder / "uses sharded.npz") as found,
        np.load(folder / "uses one device.npz") as expected,
    ):
        for name in ("evaluate", "predict", "in_memory", "on_disk"):
            np.testing.assert_allclose(found[name], expected[name], atol=1e-6)


def test_batches_that_devices_cannot_divide_raise(facts):
    for said, rows in zip(facts["refused"], (12, 4), strict=True):
        assert list(said) == ["fit", "evaluate", "predict", "cache_teacher"]
        for message in said.values():
            assert "divides each batch into 8 equal parts" in message
            assert "ArrayDataset(drop_remainder=True)" in message
            assert f"({rows}," in message


def test_processes_with_their_own_rows_train_like_one_device(folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    programs = [start(folder, process, port) for process in (0, 1)]
    try:
        for program in programs:
            finish(program)
    finally:
        for program in programs:
            program.kill()
    for process in (0, 1):
        check_same_training(folder, f"process {process}", "samples")
        # The file of each process has all weights.
        made = keras.models.load_model(folder / f"process {process}.keras")
        last = replicated.load(folder / f"process {process} samples.npz")[-1]
        for name, value in replicated.state(made, {}).items():
            np.testing.assert_array_equal(value, last[name])
