"""One of several processes that train together: a program.

`python -m process.distributed.tensorflow_worker KIND` reads its place in the cluster in
`TF_CONFIG`. The first trains once more, alone, and writes how far apart the two are, as
a line of JSON.

The loop is written out, as Keras 3.15.1's `fit` does not run over processes, whatever
the model. To build it adds up the workers' batches with `Strategy.reduce`, which raises
`ValueError: Attempt to convert a value (PerReplica:...) with an unsupported type`; and
where a model makes do without, its step takes the mean of scalar logs over their axis
0: `ValueError: Invalid reduction dimension 0 for input with 0 dimensions`.
"""

import json
import sys

import tensorflow as tf
from process.distributed import replicated
from process.distributed.tensorflow_program import ROWS, parts, synchronized


def fit(strategy, made, kind):
    """What `replicated.fit` does, by steps of all workers: what each leaves."""
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
        # Those of terms are equal everywhere.
        mine = {k: strategy.experimental_local_results(logs[k])[0] for k in logs}
        steps.append(replicated.state(made, mine))
    return steps


def compare(kind):
    """Dict of what -> largest difference, and where."""
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
