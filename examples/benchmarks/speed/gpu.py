r"""A distillation step of real size on a GPU: ResNet-50 teaches ResNet-18.

    KERAS_BACKEND=torch python examples/benchmarks/speed/gpu.py --out gpu_torch.json
    KERAS_BACKEND=jax XLA_PYTHON_CLIENT_PREALLOCATE=false \
        python examples/benchmarks/speed/gpu.py --out gpu_jax.json

Images and weights are random, and nothing is downloaded. Each side runs the step that
`fit` runs (`train_step`, compiled on JAX), without loading data. To try it on a CPU:

    python examples/benchmarks/speed/gpu.py --backend torch \
        --size 32 --batch 4 --steps 2
"""

import argparse

import hand_written
import keras
import measuring
import numpy as np
import step_time

import keras_dskd

CLASSES = 1000
TEACHER_LAYERS, STUDENT_LAYERS = ("avg_pool",), ("stage2", "features")


def resnet18(size):
    """ResNet-18 (He et al. 2016), with a last 1x1 convolution to 2048 channels.

    The convolution makes the student as wide as its teacher, because Keras's distiller
    has no projectors.

    Args:
        size: Height and width of the images.

    Returns:
        A `keras.Model` that returns logits. Its stages end in `stage1` to `stage4`.
    """
    x = inputs = keras.Input((size, size, 3))
    x = _convolution(x, 64, 7, strides=2)
    x = keras.layers.MaxPooling2D(3, strides=2, padding="same")(x)
    for stage, width in enumerate((64, 128, 256, 512), start=1):
        x = _block(x, width, 1 if stage == 1 else 2)
        x = _block(x, width, 1, name=f"stage{stage}")
    x = keras.layers.Conv2D(2048, 1, use_bias=False)(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.ReLU()(x)
    x = keras.layers.GlobalAveragePooling2D(name="features")(x)
    x = keras.layers.Dropout(0.1)(x)
    return keras.Model(inputs, _logits(x), name="student")


def _logits(x):
    # Keras's distiller needs the same dtype on both sides.
    return keras.layers.Dense(CLASSES, dtype="float32", name="logits")(x)


def _convolution(x, width, kernel, strides=1, with_relu=True):
    x = keras.layers.Conv2D(
        width, kernel, strides=strides, padding="same", use_bias=False
    )(x)
    x = keras.layers.BatchNormalization()(x)
    return keras.layers.ReLU()(x) if with_relu else x


def _block(x, width, strides, name=None):
    shortcut = x
    if strides != 1 or x.shape[-1] != width:
        shortcut = _convolution(x, width, 1, strides, with_relu=False)
    x = _convolution(x, width, 3, strides)
    x = _convolution(x, width, 3, with_relu=False)
    return keras.layers.ReLU(name=name)(keras.layers.Add()([x, shortcut]))


class Setting:
    """One batch on the device, and the models."""

    def __init__(self, size, batch, steps, policy):
        keras.mixed_precision.set_dtype_policy(policy)
        self.size, self.batch, self.steps, self.policy = size, batch, steps, policy
        random = np.random.default_rng(0)
        images = random.normal(size=(batch, size, size, 3)).astype("float32")
        self.x = keras.ops.convert_to_tensor(images)
        labels = random.integers(CLASSES, size=batch).astype("int32")
        self.y = keras.ops.convert_to_tensor(labels)
        keras.utils.set_random_seed(0)
        body = keras.applications.ResNet50(
            weights=None, include_top=False, pooling="avg", input_shape=(size, size, 3)
        )
        self.teacher = keras.Model(body.input, _logits(body.output), name="teacher")
        self.teacher.trainable = False

    def student(self):
        """A new student."""
        keras.utils.set_random_seed(1)
        return resnet18(self.size)

    def batches(self):
        """As in `step_time.Setting`: the same batch for each step."""
        return [(self.x, self.x, self.y)] * self.steps


def dskd_losses():
    """Soft targets, channel independence, spatial uniformity."""
    return [
        keras_dskd.losses.SoftTargets(temperature=4.0),
        keras_dskd.losses.ChannelIndependence("avg_pool", "features"),
        keras_dskd.losses.SpatialUniformity("stage2"),
    ]


def keras_losses():
    """Two of Keras's own losses."""
    return [
        keras.distillation.LogitsDistillation(temperature=4.0),
        keras.distillation.FeatureDistillation(
            teacher_layer_name="avg_pool", student_layer_name="features"
        ),
    ]


def training(model, setting):
    """A function that trains some steps, and the memory of a step if XLA reports it."""
    model = step_time.compiled(model)
    if not model.built:
        model.build(setting.x.shape)
    # Creates the state of metrics and optimizer, as `fit` does before its first step.
    model.optimizer.build(model.trainable_variables)
    model.compute_metrics(None, setting.y, keras.ops.zeros((len(setting.y), CLASSES)))
    model.reset_metrics()
    data = setting.x, setting.y
    if keras.backend.backend() == "torch":

        def run():
            for _ in range(setting.steps):
                model.train_step(data)

        return run, None
    import jax

    # Copies, because the step donates its arguments, and all sides share the teacher.
    state = tuple(
        [jax.numpy.array(variable.value) for variable in variables]
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
    )
    step = jax.jit(model.train_step, donate_argnums=0).lower(state, data).compile()
    kept = [state]

    def run():
        for _ in range(setting.steps):
            _, kept[0] = step(kept[0], data)
        return kept[0]

    return run, step.memory_analysis().temp_size_in_bytes


def by_hand(setting):
    """A pure torch loop around the same models."""
    import torch

    teacher = hand_written.with_features(setting.teacher, TEACHER_LAYERS)
    student = hand_written.with_features(setting.student(), STUDENT_LAYERS)
    parameters = [variable.value for variable in student.trainable_variables]
    optimizer = torch.optim.Adam(parameters, lr=1e-4)
    y = setting.y.long()

    def run():
        for _ in range(setting.steps):
            with torch.no_grad():
                of_teacher = teacher(setting.x, training=False)
            of_student = student(setting.x, training=True)
            floats = [tensor.float() for tensor in (*of_teacher, *of_student)]
            total, _ = hand_written.torch_total(y, *floats, step_time.WEIGHTS)
            optimizer.zero_grad()
            total.backward()
            optimizer.step()

    return run


def side(name, setting):
    """The function of one side, and its memory if XLA reports it."""
    if name == "teacher":
        return hand_written.teacher_forward(setting), None
    if name == "hand":
        return by_hand(setting), None
    student = setting.student()
    if name == "student":
        return training(student, setting)
    make, losses = {
        "ours": (keras_dskd.Distiller, dskd_losses()),
        "ours, Keras's losses": (keras_dskd.Distiller, keras_losses()),
        "stock": (keras.distillation.Distiller, keras_losses()),
    }[name]
    weights = step_time.WEIGHTS[: len(losses)]
    return training(make(setting.teacher, student, losses, weights), setting)


def measure(setting, names, rounds):
    """Images per second, memory and ratios of all sides."""
    sides, memory = {}, {}
    for name in names:
        sides[name], memory[name] = side(name, setting)
    for name, run in sides.items():
        measuring.block(run())
        if memory[name] is None:
            # The device's peak, or a rough guess on a CPU.
            memory[name] = measuring.growth_of_peak(run)
    times = measuring.interleave(sides, rounds)
    limit = np.add(times["student"], times["teacher"])
    images = setting.batch * setting.steps
    rates = {
        name: measuring.quartiles(images / np.array(times[name])) for name in names
    }
    rates["limit"] = measuring.quartiles(images / limit)
    ratios = {
        f"{name} / limit": measuring.ratio(times[name], limit)
        for name in names
        if name not in ("student", "teacher")
    }
    for name, other in (
        ("ours", "hand"),
        ("ours", "stock"),
        ("ours, Keras's losses", "stock"),
    ):
        if name in times and other in times:
            ratios[f"{name} / {other}"] = measuring.ratio(times[name], times[other])
    return {
        "batch": setting.batch,
        "policy": setting.policy,
        "seconds": times,
        "images_a_second": rates,
        "ratios": ratios,
        "bytes": memory,
    }


def show(result):
    """Prints the tables of one setting."""
    print(f"{result['policy']}, batch {result['batch']}")
    measuring.table(
        ["side", "images / s [quartiles]", "time / limit", "peak memory, MiB"],
        [
            [
                name,
                measuring.in_words(rate, digits=0),
                measuring.in_words(result["ratios"][f"{name} / limit"])
                if f"{name} / limit" in result["ratios"]
                else "",
                f"{result['bytes'][name] / 2**20:.0f}"
                if name in result["bytes"]
                else "",
            ]
            for name, rate in result["images_a_second"].items()
        ],
    )
    others = {
        name: ratio
        for name, ratio in result["ratios"].items()
        if not name.endswith("/ limit")
    }
    if others:
        measuring.table(
            ["ratio of times", "median [quartiles]"],
            [[name, measuring.in_words(ratio)] for name, ratio in others.items()],
        )


def main():
    """Measures, and prints tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=224, help="image size")
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--steps", type=int, default=5, help="steps timed as one")
    parser.add_argument(
        "--policy", nargs="+", default=["mixed_bfloat16", "float32"], help="of Keras"
    )
    parser.add_argument("--sides", nargs="+", help="student, teacher and which others")
    arguments = measuring.parse(parser, rounds=10)
    if keras.backend.backend() == "tensorflow":
        parser.error("This benchmark runs on torch and JAX.")
    names = ["student", "teacher", "ours", "stock", "ours, Keras's losses"]
    if keras.backend.backend() == "torch":
        names.append("hand")
    if arguments.sides:
        names = list(dict.fromkeys(["student", "teacher", *arguments.sides]))
    results = []
    for policy in arguments.policy:
        for batch in arguments.batch:
            setting = Setting(arguments.size, batch, arguments.steps, policy)
            results.append(measure(setting, names, arguments.rounds))
            show(results[-1])
            # Write after each, in case the next does not fit on the device.
            measuring.write(arguments.out, {"size": arguments.size, "results": results})
            keras.utils.clear_session(free_memory=True)


if __name__ == "__main__":
    main()
