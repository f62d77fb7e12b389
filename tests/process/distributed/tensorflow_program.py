"""Trains on logical devices of this CPU, and on one of them: a program.

`python -m process.distributed.tensorflow_program REPLICAS KIND...` prints the
differences of the two as a line of JSON. TensorFlow reads the devices when it starts.
"""

import functools
import json
import sys

import keras
import numpy as np
import tensorflow as tf
from process.distributed import replicated

#: Ten batches, the last with 11 rows. Two batches, the last with one row, which leaves
#: one of two replicas without any.
ROWS, FEW = 155, 17

synchronized = functools.partial(keras.layers.BatchNormalization, synchronized=True)


def devices(count):
    """Divides the CPU into logical devices."""
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * count,
    )
    return [f"CPU:{number}" for number in range(count)]


def train(made, kind):
    """Dict of name to recording; a recording is a list of dicts of arrays."""
    steps = replicated.fit(made, kind, ROWS)
    epoch = {k: np.float32(v[-1]) for k, v in made.history.history.items()}
    logs, weights, gradients = zip(*map(parts, steps), strict=True)
    done = {
        "logs": logs,
        "weights": weights,
        "first gradients": gradients[:1],
        "gradients": gradients,
        "epoch": [epoch],
        "few": [parts(step)[0] for step in replicated.fit(made, kind, FEW)],
    }
    if kind == "samples":
        x, y, weight = replicated.inputs(kind, ROWS)
        weak = x["student"]
        result = made.evaluate(weak, y, replicated.BATCH, 0, weight, return_dict=True)
        done["evaluate"] = [{k: np.float32(v) for k, v in result.items()}]
        done["predict"] = [{"": made.predict(weak, replicated.BATCH, verbose=0)}]
        done["cache"] = [made.cache_teacher(x["teacher"], verbose=0)]
    return done


def parts(step):
    """The logs of a step, the weights after it, and the momentum."""
    # Within an epoch, Keras logs the unweighted mean of `loss` over replicas, even if
    # they had different numbers of samples. At the end of the epoch each sample counts
    # the same.
    names = set(step) - {"log loss"}
    starts = ("log ",), ("student ", "projector "), ("optimizer ",)
    return [{n: step[n] for n in names if n.startswith(start)} for start in starts]


def compare(replicas, kinds):
    """Dict of kind to dict of name to the largest difference and its place."""
    # A second strategy in one process would reuse the collective keys of the first.
    strategy = tf.distribute.MirroredStrategy(devices(replicas))
    found = {}
    for kind in kinds:
        many = train(replicated.distiller(kind, synchronized, strategy.scope), kind)
        one = train(replicated.distiller(kind, jit_compile=False), kind)
        found[kind] = {
            what: replicated.largest_difference(many[what], one[what]) for what in one
        }
    return found


if __name__ == "__main__":
    print(json.dumps(compare(int(sys.argv[1]), sys.argv[2:])))
