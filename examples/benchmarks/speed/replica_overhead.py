r"""Time that structure losses add to a step on 1, 2, 4 and 8 devices.

    python examples/benchmarks/speed/replica_overhead.py --backend jax \
        --out replicas.json

The devices are virtual and share the cores of one processor. So more devices do not
make a step faster, and the table shows only the overhead. The size of the batch stays
the same. It is divided among the devices by `keras.distribution.DataParallel` on JAX,
and by `tf.distribute.MirroredStrategy` on TensorFlow. Two distillers are timed in
turns, each with `fit` over a few steps. One uses only soft targets. The other also uses
channel alignment of two blocks, and spatial uniformity.
"""

import argparse
import contextlib
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import measuring
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

BATCH, STEPS = 128, 8
SHAPE, CLASSES = (16, 16, 3), 10
TEACHER, STUDENT = (32, 64, 64), (16, 32, 64)
PLAIN, STRUCTURED = "soft targets", "with structure losses"


def time_on(devices, rounds):
    """Seconds per step on `devices` devices: dict of side -> list, one per round."""
    # The number of devices must be set before the backend starts.
    flags = f"--xla_force_host_platform_device_count={devices}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
    with _engine(devices):
        made = {side: _distiller(side) for side in (PLAIN, STRUCTURED)}
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, BATCH * STEPS, *SHAPE)).astype("float32")
    x = dict(zip(("teacher", "student"), images, strict=True))
    y = rng.integers(0, CLASSES, BATCH * STEPS)

    def fit(distiller):
        distiller.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)

    sides = {
        side: functools.partial(fit, distiller) for side, distiller in made.items()
    }
    times = measuring.interleave(sides, rounds)
    return {side: [t / STEPS for t in times[side]] for side in times}


def _engine(devices):
    """A context in which models are created for this number of devices."""
    import keras

    if measuring.backend() == "tensorflow":
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        parts = [tf.config.LogicalDeviceConfiguration()] * devices
        tf.config.set_logical_device_configuration(cpu, parts)
        if devices == 1:
            return contextlib.nullcontext()
        names = [f"CPU:{number}" for number in range(devices)]
        return tf.distribute.MirroredStrategy(names).scope()
    if devices > 1:
        keras.distribution.set_distribution(keras.distribution.DataParallel())
    return contextlib.nullcontext()


def _distiller(side):
    import keras
    import models

    import keras_dskd

    losses = [keras_dskd.losses.SoftTargets()]
    projectors = {}
    if side == STRUCTURED:
        for name, width in (("block2", TEACHER[1]), ("block3", TEACHER[2])):
            losses.append(keras_dskd.losses.ChannelAlignment(name, name))
            projectors[name] = keras.layers.Dense(width)
        losses.append(keras_dskd.losses.SpatialUniformity("features"))
    made = keras_dskd.Distiller(
        models.cnn(SHAPE, CLASSES, TEACHER, "teacher"),
        models.cnn(SHAPE, CLASSES, STUDENT, "student"),
        losses,
        projectors=projectors,
    )
    made.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return made


def main():
    """Times each number of devices in a separate process, and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--in-this-process", action="store_true")
    arguments = measuring.parse(parser, rounds=10)
    if measuring.backend() == "torch":
        raise SystemExit("Devices of torch are processes: see replica_traffic.py.")
    if arguments.in_this_process:
        print(json.dumps(time_on(arguments.devices[0], arguments.rounds)))
        return
    results, rows = {}, []
    for devices in arguments.devices:
        command = [sys.executable, __file__, "--in-this-process"]
        command += ["--devices", str(devices), "--rounds", str(arguments.rounds)]
        environment = {**os.environ, "KERAS_BACKEND": measuring.backend()}
        printed = subprocess.check_output(command, env=environment, text=True)
        times = results[devices] = json.loads(printed.splitlines()[-1])
        rows.append(
            [
                str(devices),
                *(
                    measuring.in_words(measuring.quartiles(times[side]), 1e3, 1)
                    for side in (PLAIN, STRUCTURED)
                ),
                measuring.in_words(measuring.ratio(times[STRUCTURED], times[PLAIN])),
            ]
        )
    header = ["devices", f"{PLAIN}, ms per step", f"{STRUCTURED}, ms", "ratio"]
    measuring.table(header, rows)
    measuring.write(arguments.out, results)


if __name__ == "__main__":
    main()
