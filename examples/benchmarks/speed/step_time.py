r"""Time of a distillation step, compared with the least possible time.

    python examples/benchmarks/speed/step_time.py --backend torch \
        --rounds 15 --out step.json

Teacher and student are small convolutional networks on 32x32 images. The limit is a
step of the student's own training plus one forward pass of the teacher, each timed
alone. For Keras models, the time of a step is the time of `fit` over data in memory,
divided by the number of steps. `train_on_batch` would copy the whole state in each step
on JAX. All sides use dropout, batch normalization, Adam, the same loss, and accuracy as
the metric. `--growth` shows how the cost above the limit grows with the batch size.
`--profile` shows where the time goes.
"""

import argparse
import json

import hand_written
import keras
import measuring
import numpy as np

import keras_dskd

SIZES = {  # Widths of the teacher's blocks, of the student's, and of the last layer.
    "small": ((32, 64, 64), (16, 32, 64), None),
    "wide": ((32, 64, 64), (16, 32, 64), 1280),
    "tiny": ((16, 16, 16), (8, 8, 16), None),
}
CLASSES = 10
WEIGHTS = [1.0, 0.5, 0.1]


def network(channels, widths, last, name, image_size):
    """Two convolutions per block, and dropout before the logits.

    Args:
        channels: Channels of the images.
        widths: Channels of each block.
        last: Channels of a last 1x1 convolution, as in MobileNets, or `None`.
        name: Name of the model.
        image_size: Height and width.

    Returns:
        A `keras.Model`. The layers to distill are `block2` and `features`.
    """
    x = inputs = keras.Input((image_size, image_size, channels))
    for number, width in enumerate(widths, start=1):
        if number > 1:
            x = keras.layers.MaxPooling2D()(x)
        for part in (1, 2):
            x = keras.layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
            x = keras.layers.BatchNormalization()(x)
            x = keras.layers.ReLU(name=f"block{number}" if part == 2 else None)(x)
        x = keras.layers.Dropout(0.1)(x)
    if last:
        x = keras.layers.Conv2D(last, 1, activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D(name="features")(x)
    x = keras.layers.Dropout(0.2)(x)
    outputs = keras.layers.Dense(CLASSES, name="logits")(x)
    return keras.Model(inputs, outputs, name=name)


class Setting:
    """Data and models of one size. Each side gets its own student."""

    def __init__(self, arguments, batch, steps, channels=3):
        self.widths = SIZES[arguments.model]
        self.image_size = 16 if arguments.model == "tiny" else 32
        self.batch, self.steps, self.channels = batch, steps, channels
        random = np.random.default_rng(0)
        shape = batch * steps, self.image_size, self.image_size
        self.x_teacher = random.normal(size=(*shape, 3)).astype("float32")
        self.x_student = self.x_teacher
        if channels != 3:
            self.x_student = random.normal(size=(*shape, channels)).astype("float32")
        self.y = random.integers(CLASSES, size=len(self.x_teacher)).astype("int32")
        keras.utils.set_random_seed(0)
        self.teacher = self._network(3, self.widths[0], "teacher")
        # Frozen for all sides, because Keras's own Distiller would freeze it.
        self.teacher.trainable = False

    def _network(self, channels, widths, name):
        return network(channels, widths, self.widths[2], name, self.image_size)

    def student(self):
        """A new student."""
        keras.utils.set_random_seed(1)
        return self._network(self.channels, self.widths[1], "student")

    def inputs(self):
        """The input of a distiller: a pair, unless both models see the same images."""
        if self.x_student is self.x_teacher:
            return self.x_teacher
        return {"teacher": self.x_teacher, "student": self.x_student}

    def batches(self):
        """Images of both models and labels, cut into batches of tensors."""
        arrays = self.x_teacher, self.x_student, self.y
        return [
            tuple(
                keras.ops.convert_to_tensor(array[start : start + self.batch])
                for array in arrays
            )
            for start in range(0, len(self.y), self.batch)
        ]


def setting_of(arguments):
    """The setting for the arguments."""
    return Setting(
        arguments, arguments.batch, arguments.steps, arguments.student_channels
    )


def compiled(model):
    """The model, compiled as all sides are."""
    model.compile(
        keras.optimizers.Adam(1e-4),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def dskd_losses():
    """Soft targets, channel independence, spatial uniformity."""
    return [
        keras_dskd.losses.SoftTargets(temperature=4.0),
        keras_dskd.losses.ChannelIndependence("features", "features"),
        keras_dskd.losses.SpatialUniformity("block2"),
    ]


def keras_losses():
    """Two of Keras's own losses."""
    return [
        keras.distillation.LogitsDistillation(temperature=4.0),
        keras.distillation.FeatureDistillation(
            teacher_layer_name="features", student_layer_name="features"
        ),
    ]


def ours(setting, losses=None):
    """Our distiller."""
    losses = losses or dskd_losses()
    weights = WEIGHTS[: len(losses)]
    return compiled(
        keras_dskd.Distiller(setting.teacher, setting.student(), losses, weights)
    )


def stock(setting, losses=None):
    """Keras's distiller."""
    losses = losses or keras_losses()
    return compiled(
        keras.distillation.Distiller(
            setting.teacher,
            setting.student(),
            losses,
            WEIGHTS[: len(losses)],
        )
    )


def fit(model, setting, x):
    """A function that runs `fit` once over the data."""

    def run():
        model.fit(
            x, setting.y, batch_size=setting.batch, verbose=0, epochs=1, shuffle=False
        )
        # `fit` returns when the logs are known. The last update may still be running.
        return [variable.value for variable in model.trainable_variables]

    return run


def side(name, setting):
    """The function to time for one side, over all steps.

    Args:
        name: One of `SIDES`.
        setting: A `Setting`.
    """
    if name == "student":
        return fit(compiled(setting.student()), setting, setting.x_student)
    if name == "teacher":
        return hand_written.teacher_forward(setting)
    if name == "hand":
        return hand_written.distillation(setting, WEIGHTS)
    if name == "cached":
        distiller = ours(setting)
        cache = distiller.cache_teacher(setting.x_teacher, batch_size=setting.batch)
        x = {"student": setting.x_student, "teacher_features": cache}
        return fit(distiller, setting, x)
    make = {
        "ours": ours,
        "ours, Keras's losses": lambda setting: ours(setting, keras_losses()),
        "stock": stock,
        "stock, our losses": lambda setting: stock(setting, dskd_losses()),
    }[name]
    return fit(make(setting), setting, setting.inputs())


SIDES = (
    "student",
    "teacher",
    "ours",
    "hand",
    "stock",
    "ours, Keras's losses",
    "stock, our losses",
    "cached",
)
RATIOS = (  # `limit` is the sum of student and teacher.
    ("ours", "limit"),
    ("hand", "limit"),
    ("stock", "limit"),
    ("ours, Keras's losses", "limit"),
    ("ours, Keras's losses", "stock"),
    ("ours", "stock"),
    ("ours", "stock, our losses"),
    ("cached", "student"),
)


def names_of_sides(channels):
    """All sides. Keras's distiller accepts only one input for both models."""
    return [name for name in SIDES if channels == 3 or "stock" not in name]


def measure(arguments):
    """Times of all sides, their ratios, and memory on torch."""
    setting = setting_of(arguments)
    names = names_of_sides(arguments.student_channels)
    times = measuring.interleave(
        {name: side(name, setting) for name in names}, arguments.rounds, warmups=2
    )
    steps = {name: [t / arguments.steps for t in times[name]] for name in names}
    steps["limit"] = list(np.add(steps["student"], steps["teacher"]))
    measuring.table(
        ["side", "ms per step [quartiles]"],
        [
            [name, measuring.in_words(measuring.quartiles(times), 1e3)]
            for name, times in steps.items()
        ],
    )
    ratios = {
        f"{name} / {other}": measuring.ratio(steps[name], steps[other])
        for name, other in RATIOS
        if name in steps and other in steps
    }
    measuring.table(
        ["ratio", "median [quartiles]"],
        [[name, measuring.in_words(ratio)] for name, ratio in ratios.items()],
    )
    result = {"seconds_a_step": steps, "ratios": ratios}
    if measuring.backend() == "torch":
        result["memory"] = memory(names, arguments)
    return result


def memory(names, arguments):
    """Peak memory of each side above the models and a small step, in bytes."""
    options = ["--model", arguments.model, "--batch", arguments.batch]
    options += ["--student-channels", arguments.student_channels]
    peaks = {name: measuring.in_own_process(name, *options) for name in names}
    measuring.table(
        ["side", "peak memory, MiB"],
        [[name, f"{peak / 2**20:.0f}"] for name, peak in peaks.items()],
    )
    return peaks


def measure_memory(name, arguments):
    """Peak memory of two steps of one side, after two of a batch of 4."""
    channels = arguments.student_channels
    side(name, Setting(arguments, 4, 2, channels))()
    run = side(name, Setting(arguments, arguments.batch, 2, channels))
    return measuring.growth_of_peak(run)


def measure_growth(arguments):
    """The cost of a step above the limit, for several batch sizes."""
    arguments.model = "tiny"
    rows, results = [], {}
    for batch in arguments.batches:
        steps = max(2, min(arguments.steps, 4096 // batch))
        setting = Setting(arguments, batch, steps)
        names = ("student", "teacher", "ours", "cached")
        times = measuring.interleave(
            {name: side(name, setting) for name in names}, arguments.rounds, warmups=2
        )
        times = {name: np.asarray(times[name]) / steps for name in names}
        limit = times["student"] + times["teacher"]
        above = measuring.quartiles(times["ours"] - limit)
        results[batch] = {
            "seconds_a_step": {name: list(times[name]) for name in names},
            "above_limit": above,
            "ratio": measuring.ratio(times["ours"], limit),
            "cached_ratio": measuring.ratio(times["cached"], times["student"]),
        }
        rows.append(
            [
                batch,
                measuring.in_words(measuring.quartiles(limit), 1e3),
                measuring.in_words(above, 1e3),
                measuring.in_words(results[batch]["ratio"]),
                measuring.in_words(results[batch]["cached_ratio"]),
            ]
        )
    header = ["batch", "limit, ms", "ours above it, ms", "ours / limit"]
    measuring.table([*header, "cached / student"], rows)
    return {"growth": results}


def main():
    """Measures, and prints tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=sorted(SIZES), default="small")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10, help="steps of one `fit`")
    parser.add_argument(
        "--student-channels",
        type=int,
        default=3,
        help="with 1, the student sees other images, and Keras's distiller is left out",
    )
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256, 1024, 4096])
    parser.add_argument("--profile", action="store_true")
    arguments = measuring.parse(parser, rounds=15)
    if arguments.memory_of:
        print(json.dumps(measure_memory(arguments.memory_of, arguments)))
        return
    if arguments.profile:
        import profiling

        profiling.show(setting_of(arguments), arguments.rounds)
        return
    results = measure_growth(arguments) if arguments.growth else measure(arguments)
    measuring.write(
        arguments.out,
        {"model": arguments.model, "batch": arguments.batch, **results},
    )


if __name__ == "__main__":
    main()
