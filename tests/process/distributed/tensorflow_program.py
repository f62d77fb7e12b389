"""Trains on logical devices of this processor, and on one of them: a program.

`python -m process.distributed.tensorflow_program REPLICAS KIND...` writes how far apart
the two are, as a line of JSON. Logical devices must be known before TensorFlow runs.
"""

import functools
import json
import sys

import keras
import numpy as np
import tensorflow as tf
from process.distributed import replicated

#: Ten batches, the last of 11 rows; and two, the last of one: too few for two replicas.
ROWS, FEW = 155, 17

synchronized = functools.partial(keras.layers.BatchNormalization, synchronized=True)


def devices(count):
    """Divides the processor into logical devices."""
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * count,
    )
    return [f"CPU:{number}" for number in range(count)]


def train(made, kind):
    """What is compared: dict of name -> a recording, list of dicts of arrays."""
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
    """What a step says, the weights that it leaves, and the momentum."""
    # Within an epoch Keras shows the plain mean of what its replicas' `loss` is so far,
    # however many samples each had. At its end each sample counts the same.
    names = set(step) - {"log loss"}
    starts = ("log ",), ("student ", "projector "), ("optimizer ",)
    return [{n: step[n] for n in names if n.startswith(start)} for start in starts]


def compare(replicas, kinds):
    """Dict of kind -> of what -> largest difference, and where."""
    # A second strategy in one process would use the collectives' keys of the first.
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
