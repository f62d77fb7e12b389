"""A teacher cache that several processes write, or that a killed one left."""

import signal
from pathlib import Path

import cachable
import interpreter
import numpy as np
import pytest

import keras_dskd


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A distiller, and the folder of its cache."""
    made = cachable.distiller()
    folder = tmp_path_factory.mktemp("finished") / "cache"
    made.cache_teacher(cachable.X, folder, cachable.BATCH, verbose=0)
    return made, folder


@pytest.mark.parametrize(
    "point",
    [
        pytest.param(
            point, marks=() if point == "rows" else pytest.mark.backend_neutral
        )
        for point in cachable.POINTS
    ],
)
def test_cache_of_a_killed_process_resumes_to_the_same_bytes(point, finished, tmp_path):
    made, whole = finished
    folder = tmp_path / "cache"
    interpreter.run(
        interpreter.TESTS / "cachable.py", point, folder, exit_status=-signal.SIGKILL
    )
    expected = "no teacher cache" if point == "the first manifest" else "not finished"
    with pytest.raises(ValueError, match=expected):
        keras_dskd.open_teacher_cache(folder)
    made.cache_teacher(cachable.X, folder, cachable.BATCH, verbose=0)
    assert contents(folder) == contents(whole)


@pytest.mark.backend_neutral
def test_two_processes_write_shards_of_one_cache(finished, tmp_path):
    made, _ = finished
    write = """
import sys
from cachable import X, distiller
index, count = map(int, sys.argv[2:])
distiller().cache_teacher(X, sys.argv[1], 5, verbose=0, shard=(index, count))
"""
    folder = tmp_path / "cache"
    processes = [interpreter.start("-c", write, folder, index, 2) for index in range(2)]
    for process in processes:
        interpreter.finish(process)
    parts = [
        keras_dskd.open_teacher_cache(folder, shard=(index, 2)) for index in range(2)
    ]
    expected = made.cache_teacher(cachable.X, batch_size=5, verbose=0)
    for name in expected:
        assert isinstance(parts[0][name], np.memmap)
        joined = np.concatenate([part[name] for part in parts])
        # The same float32 program on batches of other sizes.
        np.testing.assert_allclose(joined, expected[name], rtol=1e-5, atol=1e-6)
