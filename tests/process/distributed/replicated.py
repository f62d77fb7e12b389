"""A training that each backend repeats with batches divided over replicas.

Each step is recorded: losses, weights, and the optimizer's momentum, from which the
gradient follows in full precision. All rows differ, and the statistics of a part of a
batch are far from those of the whole batch.
"""

import contextlib

import keras
import numpy as np
from keras import layers, regularizers
from seeds import set_seed

import keras_dskd
from keras_dskd import losses
from keras_dskd.internal import trainer_state

CLASSES = 3
BATCH = 16
STEPS = 10
#: Samples of all steps; the last batch has 11.
ROWS = 155
#: Relative to the largest entry of an array, for sums in another order: after one step,
#: and after ten, which amplify rounding. (The largest seen is 9e-6.)
TOLERANCE, TOLERANCE_OF_TEN = 1e-5, 3e-5
RATE, MOMENTUM = 0.02, 0.5

#: Losses of each training, with weights that give gradients of similar size.
LOSSES = {
    "moments": lambda: [
        (losses.SoftTargets(), 1.0),
        (losses.ChannelIndependence("features", "features"), 1.0),
        (losses.ChannelIndependence(None, "middle", target="self"), 3.0),
        (losses.ChannelAlignment("middle", "middle"), 1.0),
        (losses.FitNet("middle", "middle", rows="positions"), 1.0),
    ],
    "pairs": lambda: [
        (losses.SoftTargets("auto"), 1.0),
        (losses.SpatialUniformity("middle"), 0.3),
        (losses.SimilarityPreserving("features", "features"), 30.0),
        (losses.CenteredKernelAlignment("middle", "middle"), 1.0),
        (losses.RelationalDistillation("features", "features", 1.0, 1.0), 1.0),
        (losses.ContrastiveDistillation("features", "features"), 0.3),
    ],
    "samples": lambda: [
        (losses.DecoupledDistillation(ignore_class=0), 0.3),
        (losses.AttentionTransfer("middle", "middle"), 10.0),
        (keras.distillation.LogitsDistillation(loss="mse"), 0.3),
    ],
}


def data(rows):
    """Paired images whose mean and deviation change from row to row, and labels.

    Few samples in the last third of each batch have a teacher. The first rows are the
    same for any number of rows.

    Returns:
        Teacher images, student images, teacher mask, labels, sample weights.
    """
    rng, most = np.random.default_rng(0), BATCH * STEPS
    drift = np.arange(most).reshape(-1, 1, 1, 1) % BATCH / BATCH
    strong = rng.normal(2 * drift, 0.5 + drift, (most, 8, 8, 2)).astype("float32")
    weak = (strong[..., :1] + rng.normal(size=(most, 8, 8, 1))).astype("float32")
    has_teacher = (np.arange(most) % BATCH < 11) | (rng.random(most) < 0.2)
    y = rng.integers(0, CLASSES, most)
    weight = rng.uniform(0.2, 3, most).astype("float32")
    return [array[:rows] for array in (strong, weak, has_teacher, y, weight)]


def network(shape, width, name, normalization=layers.BatchNormalization, **options):
    """Convolutions with batch normalization; `options` are of the dense layer.

    Convolutions have no bias: normalization would remove it, and its gradient would be
    rounding error.
    """
    inputs = keras.Input(shape)
    x = layers.Conv2D(width, 3, strides=2, use_bias=False, name="early")(inputs)
    x = layers.Activation("tanh", name="middle")(normalization()(x))
    if name == "student":
        x = keras_dskd.layers.SpatialUniformity(0.1)(x)
        x = keras_dskd.layers.ChannelIndependence(0.1)(x)
    x = layers.Conv2D(width + 2, 2, use_bias=False)(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Activation("tanh", name="features")(normalization()(x))
    return keras.Model(inputs, layers.Dense(CLASSES, **options)(x), name=name)


def distiller(
    kind,
    normalization=layers.BatchNormalization,
    scope=contextlib.nullcontext,
    **compile_options,
):
    """A compiled distiller with the same initial weights each time.

    Args:
        kind: A key of `LOSSES`.
        normalization: Creates the batch normalization layers of the student. Some
            backends need layers that synchronize replicas.
        scope: Returns the context to create the models in.
        **compile_options: Further arguments of `compile`.
    """
    distribution = keras.distribution.distribution()
    keras.utils.clear_session()  # Names are then the same in each process.
    keras.distribution.set_distribution(distribution)  # `clear_session` resets it.
    set_seed(1)
    with scope():
        return _distiller(kind, normalization, compile_options)


@contextlib.contextmanager
def half_precision():
    """A `scope` for `distiller` with the `mixed_float16` policy."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        yield
    finally:
        keras.config.set_dtype_policy("float32")


def _distiller(kind, normalization, compile_options):
    teacher = network((8, 8, 2), 6, "teacher")
    for layer in teacher.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_mean.assign(0.1 * np.arange(layer.moving_mean.shape[0]))
    # So sure that the automatic temperature is between its limits.
    head = teacher.layers[-1]
    head.kernel.assign(6.0 * head.kernel)
    student = network(
        (8, 8, 1),
        4,
        "student",
        normalization,
        kernel_regularizer=regularizers.L2(0.01),
    )
    given, weights = zip(*LOSSES[kind](), strict=True)
    read = {getattr(loss, "student_layer_name", None) for loss in given}
    widths = {"middle": 6, "features": 8}
    made = keras_dskd.Distiller(
        teacher,
        student,
        given,
        list(weights),
        projectors={
            name: layers.Dense(widths[name], use_bias=False)
            for name in widths
            if name in read
        },
    )
    made.compile(
        keras.optimizers.SGD(RATE, momentum=MOMENTUM),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **compile_options,
    )
    if isinstance(made.optimizer, keras.optimizers.LossScaleOptimizer):
        made.optimizer.initial_scale = 64.0  # Causes no overflow.
    return made


def inputs(kind, rows):
    """The arguments of `fit`: `(x, y, sample_weight)`."""
    strong, weak, has_teacher, y, weight = data(rows)
    x = {"teacher": strong, "student": weak}
    if kind == "moments":
        return x, y, None
    x["teacher_mask"] = has_teacher
    if kind == "samples":
        # Other shares of labels in each part of a batch.
        row = np.arange(rows)
        x["label_mask"] = (row % BATCH < 5) | (row % 3 == 0)
        y = np.where(x["label_mask"], y, (y + 1) % CLASSES)
    return x, y, weight


class Recorder(keras.callbacks.Callback):
    """Records the logs of each step, and the state after it."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def on_train_batch_end(self, batch, logs=None):
        trainer_state.sync(self.model)
        self.steps.append(state(self.model, logs))


def state(model, logs):
    """Dict of name to array: logs, student and projector variables, momentum."""
    found = {f"log {name}": np.float32(value) for name, value in logs.items()}
    projectors = model.projectors.values()
    kept = {
        "student": model.student.variables,
        "projector": [v for layer in projectors for v in layer.variables],
        "optimizer": model.optimizer.variables,
    }
    for part, variables in kept.items():
        for number, variable in enumerate(variables):
            # Full paths would differ between processes.
            name = f"{part} {number} {variable.name}"
            found[name] = keras.ops.convert_to_numpy(variable)
    return found


def fit(made, kind, rows, batch_size=BATCH, own=slice(None)):
    """Trains with `fit`, without shuffling; returns the state of each step.

    Args:
        made: A distiller from `distiller`.
        kind: A key of `LOSSES`.
        rows: Number of samples.
        batch_size: Samples per batch.
        own: Index of the samples to train on.
    """
    recorder = Recorder()
    x, y, weight = keras.tree.map_structure(
        lambda array: None if array is None else array[own], inputs(kind, rows)
    )
    made.fit(
        x,
        y,
        sample_weight=weight,
        batch_size=batch_size,
        shuffle=False,
        verbose=0,
        callbacks=[recorder],
    )
    return recorder.steps


def order_of_shards(rows, count):
    """The order in which processes together read rows, each from its own shard."""
    shards = [
        np.arange(rows)[keras_dskd.shard_rows(rows, (index, count))]
        for index in range(count)
    ]
    parts = [shard.reshape(-1, BATCH // count) for shard in shards]
    return np.stack(parts, axis=1).reshape(-1)


def save(path, steps):
    """Writes recorded steps to a file."""
    flat = {
        f"{n}/{name}": v for n, step in enumerate(steps) for name, v in step.items()
    }
    np.savez(path, **flat)


def load(path):
    """Reads the steps that `save` wrote."""
    steps = {}
    with np.load(path) as file:
        for key in file.files:
            number, name = key.split("/", 1)
            steps.setdefault(int(number), {})[name] = file[key]
    return [steps[number] for number in sorted(steps)]


def check_same(steps, expected):
    """Asserts that two recordings show the same training."""
    assert steps
    apart, where = largest_difference(steps[:1], expected[:1])
    assert apart < TOLERANCE, where
    apart, where = largest_difference(steps, expected)
    assert apart < TOLERANCE_OF_TEN, where


def largest_difference(steps, expected):
    """The largest difference of two recordings, relative to the size of each array.

    Returns:
        The difference, and the step and name of the array.
    """
    assert len(steps) == len(expected)
    worst = (0.0, "")
    for number, (step, other) in enumerate(zip(steps, expected, strict=True)):
        assert set(step) == set(other)
        for name, value in other.items():
            assert np.isfinite(step[name]).all(), name
            scale = max(np.abs(value).max(), 1e-3)
            apart = float(np.abs(step[name] - value).max() / scale)
            worst = max(worst, (apart, f"step {number}, {name}"))
    return worst
