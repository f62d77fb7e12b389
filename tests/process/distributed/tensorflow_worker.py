"""One of several processes that train together: a program.

`python -m process.distributed.tensorflow_worker KIND` reads its place in the cluster
from `TF_CONFIG`. The first process then trains again on its own, and prints the
differences of the two trainings as a line of JSON.

The loop is written out because `fit` of Keras 3.15.1 does not run over processes, for
any model. Building reduces the workers' batches with `Strategy.reduce`, which raises
`ValueError: Attempt to convert a value (PerReplica:...) with an unsupported type`. If a
model is built already, the step takes the mean of scalar logs over axis 0:
`ValueError: Invalid reduction dimension 0 for input with 0 dimensions`.
"""

import json
import sys

import tensorflow as tf
from process.distributed import replicated
from process.distributed.tensorflow_program import ROWS, parts, synchronized


def fit(strategy, made, kind):
    """Like `replicated.fit`, in steps of all workers."""
    x, y, weight = replicated.inputs(kind, ROWS)
    batches = tf.data.Dataset.from_tensor_slices((x, y, weight)).batch(replicated.BATCH)
    with strategy.scope():
        made.optimizer.build(made.trainable_variables)

    @tf.function(reduce_retracing=True, autograph=False)
    def train_step(batch):
        return strategy.run(made.train_step, args=(batch,))

    steps = []
    for batch in strategy.experimental_distribute_dataset(batches):
        logs = train_step(batch)
        # All replicas log the same losses.
        mine = {k: strategy.experimental_local_results(logs[k])[0] for k in logs}
        steps.append(replicated.state(made, mine))
    return steps


def compare(kind):
    """Dict of name to the largest difference and its place."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    assert strategy.num_replicas_in_sync == 2
    made = replicated.distiller(kind, synchronized, strategy.scope)
    many = fit(strategy, made, kind)
    if strategy.cluster_resolver.task_id > 0:
        return None
    one = replicated.fit(replicated.distiller(kind, jit_compile=False), kind, ROWS)
    many, one = (zip(*map(parts, steps), strict=True) for steps in (many, one))
    found = map(replicated.largest_difference, many, one)
    return dict(zip(["logs", "weights", "gradients"], found, strict=True))


if __name__ == "__main__":
    print(json.dumps(compare(sys.argv[1])))
