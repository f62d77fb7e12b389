"""`tf.distribute` trains like one device with the whole batch."""

import contextlib
import json
import socket
from pathlib import Path

import interpreter
import keras
import pytest

pytestmark = pytest.mark.every_backend

if keras.backend.backend() != "tensorflow":
    pytest.skip("needs the TensorFlow backend", allow_module_level=True)

FOLDER = Path(__file__).parent
KINDS = {2: ["moments", "samples"], 3: ["pairs"]}


@pytest.fixture(scope="module")
def differences():
    """The result of each program: dict of replicas, kind, and name."""
    programs = {
        replicas: program("tensorflow_program", str(replicas), *kinds)
        for replicas, kinds in KINDS.items()
    }
    return {replicas: found_by(programs[replicas]) for replicas in programs}


def program(name, *arguments, **environment):
    """Starts a module of this folder."""
    # With oneDNN, a convolution of zero rows has the shape of its input. A batch that
    # leaves a replica without rows would then fail.
    environment["TF_ENABLE_ONEDNN_OPTS"] = "0"
    path = FOLDER / f"{name}.py"
    return interpreter.start(path, *arguments, environment=environment)


def found_by(started):
    """The result that a program printed."""
    try:
        output, errors = started.communicate(timeout=600)
    finally:
        started.kill()
    assert started.returncode == 0, errors[-5000:]
    return json.loads(output.splitlines()[-1])


def free_ports(count):
    """Ports that were free a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


#: Tolerances for sums in another order. In gradients, ten steps amplify it to 2e-5.
WITHIN = {
    "logs": 1e-5,
    "weights": 1e-5,
    "first gradients": 1e-5,
    "gradients": 5e-5,
    "epoch": 1e-5,
    "few": 1e-5,
}
OF_STUDENT = {"evaluate": 1e-5, "predict": 5e-5, "cache": 1e-6}


@pytest.mark.parametrize(
    "replicas, kind", [(count, kind) for count in KINDS for kind in KINDS[count]]
)
def test_replicas_train_like_one_device(differences, replicas, kind):
    found = differences[replicas][kind]

    apart = {what: found[what] for what in WITHIN if not found[what][0] < WITHIN[what]}
    assert not apart


@pytest.mark.parametrize("what", OF_STUDENT)
def test_replicas_evaluate_predict_and_cache_like_one_device(differences, what):
    apart, where = differences[2]["samples"][what]

    assert apart < OF_STUDENT[what], where


def test_processes_train_like_one_device():
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    tasks = [{"type": "worker", "index": index} for index in range(2)]
    workers = [
        program(
            "tensorflow_worker",
            "pairs",
            TF_CONFIG=json.dumps({"cluster": cluster, "task": task}),
        )
        for task in tasks
    ]

    found, nothing = map(found_by, workers)
    assert sorted(found) == ["gradients", "logs", "weights"] and nothing is None
    apart = {what: found[what] for what in found if not found[what][0] < WITHIN[what]}
    assert not apart
