"""Trains on virtual devices of one CPU, for `test_jax.py`.

    python jax_program.py FOLDER               one process, 8 devices
    python jax_program.py FOLDER PROCESS PORT  one of two, with 2 devices each

JAX reads the number of devices when it starts. `FOLDER` receives the recordings, and
`facts.json` with everything else that the tests check.
"""

import json
import os
import sys
from pathlib import Path

FOLDER, *RANK = sys.argv[1:]
FOLDER = Path(FOLDER)
# After the flags for fast compilation, which conftest.py sets.
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} "
    f"--xla_force_host_platform_device_count={2 if RANK else 8}"
)
os.environ["JAX_CPU_COLLECTIVES_IMPLEMENTATION"] = "gloo"

import keras  # noqa: E402
import numpy as np  # noqa: E402
from keras import distribution  # noqa: E402
from process.distributed import replicated  # noqa: E402

BATCH = replicated.BATCH
FULL = BATCH * replicated.STEPS
#: Rows of each training. (Each batch size costs a compilation.)
ROWS = {"moments": FULL, "pairs": FULL - BATCH // 2, "samples": FULL}


def data_parallel(devices):
    return distribution.DataParallel(devices=distribution.list_devices("cpu")[:devices])


def model_parallel(batch, model):
    """Divides all kernels of the teacher, and the first of the student."""
    mesh = distribution.DeviceMesh(
        (batch, model),
        ["batch", "model"],
        distribution.list_devices("cpu")[: batch * model],
    )
    layout = distribution.LayoutMap(mesh)
    # A variable's path has the name of its layer, but not of its model.
    if model == 2:
        layout["^(early|conv2d)/kernel"] = (None, None, None, "model")
        layout["^dense/kernel"] = ("model", None)
    return distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")


def record(name, kind, rows):
    made = replicated.distiller(kind)
    replicated.save(FOLDER / f"{name} {kind}.npz", replicated.fit(made, kind, rows))
    return made


def save_uses(name, made):
    """Saves the results of `evaluate`, `predict` and `cache_teacher`."""
    x, y, _ = replicated.inputs("pairs", 3 * BATCH)
    options = {"batch_size": BATCH, "verbose": 0}
    in_memory = made.cache_teacher(x["teacher"], **options)
    on_disk = made.cache_teacher(x["teacher"], FOLDER / f"cache {name}", **options)
    np.savez(
        FOLDER / f"uses {name}.npz",
        evaluate=made.evaluate(x["student"], y, **options),
        predict=made.predict(x["student"], **options),
        in_memory=in_memory["middle"],
        on_disk=on_disk["middle"],
    )


def shards(variables):
    """Dict of path to shape per device, for the variables that are divided."""
    shapes = {}
    for variable in variables:
        (shape,) = {shard.data.shape for shard in variable.value.addressable_shards}
        if shape != variable.shape:
            shapes[variable.path] = shape
    return shapes


def all_shards(made):
    return {
        "teacher": shards(made.teacher.variables),
        "optimizer": shards(made.optimizer.variables),
    }


def shards_after_use(made):
    """The shards after uses that read all values and write them back."""
    x, y, _ = replicated.inputs("pairs", 3 * BATCH)
    options = {"batch_size": BATCH, "verbose": 0, "callbacks": [Stops()]}
    weights = made.get_weights()
    found = {}
    for name, call in {
        "evaluate": lambda: made.evaluate(x["student"], y, **options),
        "predict": lambda: made.predict(x["student"], **options),
    }.items():
        try:
            call()
        except KeyboardInterrupt:
            found[f"interrupted {name}"] = all_shards(made)
        assert all(map(np.array_equal, made.get_weights(), weights))
    made.save(FOLDER / "sharded.keras")
    loaded = keras.models.load_model(FOLDER / "sharded.keras")
    assert all(map(np.array_equal, loaded.get_weights(), weights))
    found["loaded model"] = all_shards(loaded)
    made.save_weights(FOLDER / "sharded.weights.h5")
    made.load_weights(FOLDER / "sharded.weights.h5")
    assert all(map(np.array_equal, made.get_weights(), weights))
    found["loaded weights"] = all_shards(made)
    return found


class Stops(keras.callbacks.Callback):
    """Interrupts after the second batch."""

    def stop(self, batch, logs=None):
        if batch == 1:
            raise KeyboardInterrupt

    on_test_batch_end = on_predict_batch_end = stop


def refusals(made, rows):
    """The error of each use for batches that devices cannot divide evenly.

    Checks that no weights are lost.
    """
    x, y, weights = replicated.inputs("samples", rows)
    options = {"batch_size": BATCH, "verbose": 0}
    said = {}
    for name, call in {
        "fit": lambda: made.fit(x, y, sample_weight=weights, **options),
        "evaluate": lambda: made.evaluate(x["student"], y, **options),
        "predict": lambda: made.predict(x["student"], **options),
        "cache_teacher": lambda: made.cache_teacher(x["teacher"], **options),
    }.items():
        steps, before = int(made.optimizer.iterations), made.get_weights()
        try:
            call()
        except ValueError as error:
            said[name] = str(error)
        if name == "fit":
            # Steps on whole batches still count.
            assert int(made.optimizer.iterations) == steps + rows // BATCH
        if name != "fit" or rows < BATCH:
            assert all(map(np.array_equal, made.get_weights(), before))
        assert all(np.isfinite(values).all() for values in made.get_weights())
    return said


def one_process():
    facts = {}
    for kind, rows in ROWS.items():
        record("one device", kind, rows)
        with data_parallel(8).scope():
            made = record("8 devices", kind, rows)
            if kind == "samples":
                facts["refused"] = [refusals(made, rows) for rows in (12, BATCH + 4)]
    # Three devices cannot divide a batch: each gets all of it.
    with model_parallel(1, 3).scope():
        record("whole batches", "samples", FULL)
    with model_parallel(4, 2).scope():
        made = record("sharded", "pairs", FULL - BATCH)
        facts["shards"] = {"training": all_shards(made), **shards_after_use(made)}
        save_uses("sharded", replicated.distiller("pairs"))
    save_uses("one device", replicated.distiller("pairs"))
    (FOLDER / "facts.json").write_text(json.dumps(facts))


def one_of_two_processes(process, port):
    keras.distribution.initialize(f"127.0.0.1:{port}", 2, int(process))
    # Each process reads its half of each batch.
    own = np.arange(FULL) % BATCH // (BATCH // 2) == int(process)
    parallel = distribution.DataParallel(auto_shard_dataset=False)
    with parallel.scope():
        made = replicated.distiller("samples")
        steps = replicated.fit(made, "samples", FULL, BATCH // 2, own)
        made.save(FOLDER / f"process {process}.keras")
    replicated.save(FOLDER / f"process {process} samples.npz", steps)


if __name__ == "__main__":
    if RANK:
        one_of_two_processes(*RANK)
    else:
        one_process()
