"""Distil on several processes with torch: data parallelism around a Distiller.

    KERAS_BACKEND=torch torchrun --nproc_per_node 2 examples/distributed_torch.py

Each process feeds its own part of every batch to its own copy of the models. All losses
and the student's batch normalization use statistics of the whole batch, so the number
of processes changes only the speed. Processes communicate by NCCL if each has a GPU,
and otherwise by gloo.

`train` is the loop to reuse in your own code. DISTRIBUTED.md explains it.
"""

import argparse
import os

import keras
import numpy as np
import torch
from keras import ops
from torch import distributed

import keras_dskd
from keras_dskd.internal import replicas


@keras.saving.register_keras_serializable(package="distributed_torch")
class SynchronizedBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization with the statistics of all processes' rows.

    It does what `synchronized=True` does on TensorFlow. Keras has no such layer for
    torch. It has the same weights as `keras.layers.BatchNormalization`.
    """

    def call(self, inputs, training=None, mask=None):
        of_step = replicas.current()
        if not training or not self.trainable or of_step is None:
            return super().call(inputs, training=training, mask=mask)
        if mask is not None or self.renorm:
            raise ValueError("Masks and renormalization are not synchronized.")
        x = ops.cast(inputs, "float32")
        axis = self.axis % len(x.shape)
        others = [a for a in range(len(x.shape)) if a != axis]
        shape = [1] * len(x.shape)
        shape[axis] = -1
        count = of_step.sum(ops.cast(ops.size(x) // x.shape[axis], "float32"))
        mean = of_step.sum(ops.sum(x, axis=others)) / count  # (c,)
        centered = x - ops.reshape(mean, shape)
        variance = of_step.sum(ops.sum(ops.square(centered), axis=others)) / count
        for moving, value in (
            (self.moving_mean, mean),
            (self.moving_variance, variance),
        ):
            kept = self.momentum * moving + (1.0 - self.momentum) * value
            moving.assign(ops.stop_gradient(kept))
        scale = ops.rsqrt(variance + self.epsilon)
        if self.scale:
            scale = scale * self.gamma
        outputs = centered * ops.reshape(scale, shape)
        if self.center:
            outputs = outputs + ops.reshape(self.beta, shape)
        return ops.cast(outputs, self.compute_dtype)


def synchronized(model):
    """A copy of a Functional or Sequential model that normalizes over processes."""

    def of_layer(layer):
        kind = type(layer)
        if kind is keras.layers.BatchNormalization:
            kind = SynchronizedBatchNormalization
        return kind.from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=of_layer)
    copy.set_weights(model.get_weights())
    return copy


def train(distiller, batches, epochs, on_step=lambda logs: None):
    """Trains a compiled distiller, in each process on its own part of the batches.

    Args:
        distiller: A built, compiled `keras_dskd.Distiller`. All processes start from
            the weights of the first one.
        batches: Function without arguments that returns an epoch's batches for this
            process: `(x, y)` or `(x, y, sample_weight)`, with `x` as for `fit`. All
            processes need the same number of batches. Their sizes may differ, but each
            needs at least one row.
        epochs: Number of epochs.
        on_step: Called with each step's logs, a dict of floats.
    """
    # DistributedDataParallel waits for the gradients of all parameters that require
    # one. The teacher gets no gradients.
    for parameter in distiller.teacher.parameters():
        parameter.requires_grad_(False)
    parallel = torch.nn.parallel.DistributedDataParallel(distiller)
    for _ in range(epochs):
        distiller.reset_metrics()
        for batch in batches():
            x, y, weight = keras.utils.unpack_x_y_sample_weight(_as_tensors(batch))
            distiller.zero_grad()
            prediction = parallel(x, training=True)
            loss = distiller.compute_loss(x, y, prediction, weight, training=True)
            distiller.optimizer.scale_loss(loss).backward()  # In `mixed_float16`.
            variables = distiller.trainable_weights
            gradients = [variable.value.grad for variable in variables]
            with torch.no_grad():
                distiller.optimizer.apply(gradients, variables)
            logs = distiller.compute_metrics(x, y, prediction, weight)
            logs["loss"] = logs["total_loss"]  # Only `fit` updates "loss".
            on_step({name: float(value) for name, value in logs.items()})


def _as_tensors(batch):
    return keras.tree.map_structure(ops.convert_to_tensor, batch)


def own_batches(x, y, batch_size, seed=0, sample_weight=None, shuffle=True):
    """This process's part of every batch, as `train` takes them.

    Args:
        x: Structure of arrays, all samples.
        y: Labels.
        batch_size: Samples per batch, over all processes together. The last batch of an
            epoch may be smaller. It is dropped if it has fewer rows than processes.
        seed: Seed for the order of samples, which differs in each epoch.
        sample_weight: Weights of the samples, or `None`.
        shuffle: Whether to shuffle the samples.

    Returns:
        A function that returns the batches of the next epoch.
    """
    rank, world = distributed.get_rank(), distributed.get_world_size()
    rng = np.random.default_rng(seed)  # The same in each process.
    given = (x, y) if sample_weight is None else (x, y, sample_weight)

    def of_epoch():
        order = rng.permutation(len(y)) if shuffle else np.arange(len(y))
        for start in range(0, len(y), batch_size):
            batch = order[start : start + batch_size]
            if len(batch) < world:
                break
            rows = np.array_split(batch, world)[rank]
            yield keras.tree.map_structure(lambda array: array[rows], given)  # noqa: B023

    return of_epoch


def start():
    """Connects the processes that torchrun started."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        distributed.init_process_group("nccl")
    else:
        distributed.init_process_group("gloo")


def main():
    """Trains a teacher and a student on degraded digits."""
    # Imported here, so that `train` works without the packages that these need.
    import digits
    import models
    import training

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=50, help="of all processes")
    parser.add_argument("--out", default="student.keras")
    arguments = parser.parse_args()
    data = digits.load()
    shape, widths = data.strong_train.shape[1:], (16, 32, 64)
    # Before processes are joined: each trains the teacher alone. For a large teacher
    # load its file here.
    keras.utils.set_random_seed(0)
    teacher = models.cnn(shape, data.classes, widths, "teacher")
    training.train(
        teacher,
        data.strong_train,
        data.y_train,
        seed=0,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
    )
    start()
    is_first = distributed.get_rank() == 0
    student = models.cnn(shape, data.classes, widths, "student")
    distiller = keras_dskd.recommended(
        teacher, synchronized(student), ["block2", "block3"]
    )
    steps = arguments.epochs * -(-len(data.y_train) // arguments.batch_size)
    distiller.compile(
        keras.optimizers.AdamW(training.one_cycle(3e-3, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    x = {"teacher": data.strong_train, "student": data.weak_train}
    batches = own_batches(x, data.y_train, arguments.batch_size)
    logs = {}
    train(distiller, batches, arguments.epochs, logs.update)
    if is_first:
        student.set_weights(distiller.student.get_weights())
        logits = student.predict(data.weak_test, verbose=0)
        accuracy = np.mean(logits.argmax(axis=1) == data.y_test)
        print(f"{distributed.get_world_size()} processes, last epoch's terms:")
        print("  " + ", ".join(f"{name} {value:.3f}" for name, value in logs.items()))
        print(f"test accuracy {100 * accuracy:.2f} %")
        student.save(arguments.out)  # Plain Keras layers alone.
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
