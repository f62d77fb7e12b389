"""`tf.distribute` trains as one device does on the whole batch."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import pytest

from distributed import replicated

if keras.backend.backend() != "tensorflow":
    pytest.skip("needs the TensorFlow backend", allow_module_level=True)

TESTS = pathlib.Path(__file__).parent.parent
KINDS = {2: ["samples"], 4: list(replicated.LOSSES)}


@pytest.fixture(scope="module")
def differences():
    """What each program found: dict of replicas -> kind -> of what."""
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    programs = {
        replicas: subprocess.Popen(
            [sys.executable, "-m", "distributed.tensorflow_program", str(replicas)]
            + kinds,
            # With oneDNN a convolution of no rows has the shape of its input, and the
            # step of a batch that leaves a replica none stops there.
            env={**os.environ, "PYTHONPATH": path, "TF_ENABLE_ONEDNN_OPTS": "0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for replicas, kinds in KINDS.items()
    }
    found = {}
    for replicas, program in programs.items():
        output, errors = program.communicate(timeout=600)
        assert program.returncode == 0, errors[-5000:]
        found[replicas] = json.loads(output.splitlines()[-1])
    return found


#: Sums in another order. Ten steps make more of it: in gradients it reaches 2e-5.
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
def test_replicas_train_as_one_device(differences, replicas, kind):
    found = differences[replicas][kind]

    apart = {what: found[what] for what in WITHIN if not found[what][0] < WITHIN[what]}
    assert not apart


@pytest.mark.parametrize("what", OF_STUDENT)
@pytest.mark.parametrize("replicas", KINDS)
def test_replicas_do_the_rest_as_one_device(differences, replicas, what):
    apart, where = differences[replicas]["samples"][what]

    assert apart < OF_STUDENT[what], where
