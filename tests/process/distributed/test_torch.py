"""Two torch processes train like one process with the whole batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import interpreter
import keras
import pytest
from process.distributed import planted, replicated

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="torch.distributed needs torch"
)

ROOT = Path(__file__).resolve().parents[3]


def torchrun(*program, processes=2):
    """Runs a program and its arguments in processes; returns what they printed."""
    launched = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        + [f"--nproc_per_node={processes}", *map(str, program)],
        env={
            **os.environ,
            "KERAS_BACKEND": "torch",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(
                str(ROOT / folder)
                for folder in (
                    "",
                    "examples",
                    "examples/benchmarks/speed",
                    "tests",
                    "tests/process/distributed",
                )
            ),
        },
        capture_output=True,
        text=True,
    )
    assert launched.returncode == 0, launched.stderr
    return launched.stdout


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The folder with the recordings of two processes."""
    folder = tmp_path_factory.mktemp("torch")
    program = ROOT / "tests/process/distributed/torch_program.py"
    torchrun(interpreter.LIGHT, program, folder)
    return folder


@pytest.mark.parametrize("kind", replicated.LOSSES)
def test_processes_train_like_one(kind, recorded):
    expected = replicated.fit(replicated.distiller(kind), kind, replicated.ROWS)
    steps = replicated.load(recorded / f"{kind}.npz")
    assert len(steps) == replicated.STEPS
    replicated.check_same(steps, expected)


def test_processes_with_shards_of_a_cache_train_like_one(recorded):
    full = replicated.STEPS * replicated.BATCH
    order = replicated.order_of_shards(full, 2)
    made = replicated.distiller("samples")
    expected = replicated.fit(made, "samples", full, own=order)
    replicated.check_same(replicated.load(recorded / "shards.npz"), expected)


def test_processes_scale_the_loss_in_float16(recorded):
    made = replicated.distiller("samples", scope=replicated.half_precision)
    expected = replicated.fit(made, "samples", replicated.BATCH)
    steps = replicated.load(recorded / "half.npz")
    apart, where = replicated.largest_difference(steps, expected)
    # Rounding of float16. Without scaling the loss, gradients would be 1/64 as large.
    assert apart < 0.01, where


@pytest.mark.parametrize("mistake", planted.MISTAKES)
def test_planted_mistakes_are_found(mistake, recorded):
    made = replicated.distiller("moments")
    expected = replicated.fit(made, "moments", replicated.BATCH)
    apart, _ = replicated.largest_difference(
        replicated.load(recorded / f"{mistake}.npz"), expected
    )
    assert apart > 100 * replicated.TOLERANCE


def test_traffic_matches_the_formulas(recorded):
    lines = json.loads((recorded / "traffic.json").read_text())
    assert len(lines) > 5
    for line in lines:
        # Numbers of rows take a few bytes more.
        apart = line["counted_bytes"] - line["formula_bytes"]
        assert 0 <= apart <= 100, line


def test_fit_in_one_of_several_processes_raises(recorded):
    for rank in range(2):
        said = (recorded / f"refused_{rank}").read_text()
        assert "`torch.distributed` connects 2" in said
        assert "distributed_torch.py" in said


def test_example_script_runs(tmp_path):
    out = tmp_path / "student.keras"
    example = ROOT / "examples" / "distributed_torch.py"
    printed = torchrun(example, "--epochs", 1, "--out", out)
    assert "2 processes" in printed
    assert "test accuracy" in printed
    student = keras.saving.load_model(out)
    assert {type(layer).__module__.split(".")[0] for layer in student.layers} == {
        "keras"
    }
