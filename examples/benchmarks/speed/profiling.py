"""Where the time of a step goes: `step_time.py --profile`."""

import cProfile
import pstats

import keras
import measuring
import step_time

import keras_dskd


def show(setting, rounds):
    """Prints short tables.

    Args:
        setting: A `step_time.Setting`.
        rounds: How often each part is timed.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        show_costs(setting)
    show_parts(setting, rounds)
    for name in ("student", "ours", "stock"):
        if name in step_time.names_of_sides(setting.channels):
            run = step_time.side(name, setting)
            show_python(name, run, setting.steps)
            if backend == "torch":
                show_torch(name, run, setting.steps)


def show_parts(setting, rounds):
    """Time of a step with each loss alone, and with a loss that costs nothing."""
    soft_targets, independence, uniformity = step_time.dskd_losses()
    distillers = {
        "ours, no loss": [Nothing()],
        "ours, no loss, taps": [Nothing("features", "features")],
        "ours, soft targets": [soft_targets],
        "ours, channel independence": [independence],
        "ours, spatial uniformity": [uniformity],
        "ours, all": [soft_targets, independence, uniformity],
    }
    sides = {
        name: step_time.fit(step_time.ours(setting, losses), setting, setting.inputs())
        for name, losses in distillers.items()
    }
    for name in ("student", "teacher", "cached"):
        sides[name] = step_time.side(name, setting)
    if setting.channels == 3:
        logits, _ = step_time.keras_losses()
        sides["stock, logits"] = step_time.fit(
            step_time.stock(setting, [logits]), setting, setting.inputs()
        )
        sides["stock, logits and features"] = step_time.side("stock", setting)
    times = measuring.interleave(sides, rounds, warmups=2)
    rows = []
    for name in times:
        above = [
            (t - student - teacher) / setting.steps
            for t, student, teacher in zip(
                times[name], times["student"], times["teacher"], strict=True
            )
        ]
        seconds = [t / setting.steps for t in times[name]]
        rows.append(
            [
                name,
                measuring.in_words(measuring.quartiles(seconds), 1e3),
                measuring.in_words(measuring.quartiles(above), 1e3),
            ]
        )
    measuring.table(["side", "ms per step", "ms above student + teacher"], rows)


class Nothing(keras.distillation.DistillationLoss):
    """A loss without cost, to measure the distiller's own cost."""

    def __init__(self, teacher_layer_name=None, student_layer_name=None):
        self.teacher_layer_name = teacher_layer_name
        self.student_layer_name = student_layer_name

    def validate_outputs(self, teacher_outputs, student_outputs):
        """Nothing to check."""

    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        """One number from the student's outputs."""
        return keras.ops.ravel(student_outputs)[0] * 0.0

    def get_config(self):
        return {
            "teacher_layer_name": self.teacher_layer_name,
            "student_layer_name": self.student_layer_name,
        }


def show_python(name, run, steps):
    """Functions by their own time, and those of keras_dskd by their whole time."""
    run()
    profile = cProfile.Profile()
    profile.enable()
    measuring.block(run())
    profile.disable()
    stats = pstats.Stats(profile).stats
    package = keras_dskd.__path__[0]
    rows = []
    for (path, line, function), (_, calls, own, whole, _) in stats.items():
        short = "/".join(path.split("/")[-2:])
        where = function if path == "~" else f"{short}:{line} {function}"
        rows.append((path.startswith(package), where, calls / steps, own, whole))
    by_own_time = sorted(rows, key=lambda row: -row[3])[:12]
    of_package = sorted((row for row in rows if row[0]), key=lambda row: -row[4])[:16]
    calls = sum(row[2] for row in rows)
    print(f"{name}: {calls:.0f} calls of Python functions per step")
    for rows in (by_own_time, of_package):
        if rows:
            measuring.table(
                ["function", "calls per step", "own ms per step", "with what it calls"],
                [
                    [
                        f"`{where}`",
                        f"{calls:.1f}",
                        f"{1e3 * own / steps:.2f}",
                        f"{1e3 * whole / steps:.2f}",
                    ]
                    for _, where, calls, own, whole in rows
                ],
            )


def show_torch(name, run, steps):
    """Operations by their own time on the device."""
    import torch

    run()
    with torch.profiler.profile() as profile:
        measuring.block(run())
    on_gpu = torch.cuda.is_available()
    key = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    events = sorted(profile.key_averages(), key=lambda event: -getattr(event, key))
    total = sum(getattr(event, key) for event in events) / 1e3
    count = sum(event.count for event in events if event.key.startswith("aten::"))
    print(f"{name}: {total / steps:.1f} ms per step, {count / steps:.0f} operations")
    measuring.table(
        ["operation", "calls per step", "own ms per step"],
        [
            [event.key, event.count / steps, f"{getattr(event, key) / 1e3 / steps:.2f}"]
            for event in events[:14]
        ],
    )


def show_costs(setting):
    """XLA's counts for each compiled step: operations, memory traffic, memory."""
    import jax

    x_teacher, x_student, y = setting.batches()[0]
    distiller_x = x_teacher
    if setting.channels != 3:
        distiller_x = {"teacher": x_teacher, "student": x_student}
    makes = {
        "student": lambda: step_time.compiled(setting.student()),
        "ours": lambda: step_time.ours(setting),
        "ours, Keras's losses": lambda: step_time.ours(
            setting, step_time.keras_losses()
        ),
    }
    if setting.channels == 3:
        makes["stock"] = lambda: step_time.stock(setting)
    teacher = jax.jit(
        lambda state, x: setting.teacher.stateless_call(*state, x, training=False)[0]
    )
    weights = (
        [variable.value for variable in setting.teacher.trainable_variables],
        [variable.value for variable in setting.teacher.non_trainable_variables],
    )
    lowered = {"teacher": teacher.lower(weights, x_teacher)}
    for name, make in makes.items():
        model = make()
        x = x_student if name == "student" else distiller_x
        if not model.built:
            model.build(x_teacher.shape)
        # Creates the state of metrics and optimizer, as `fit` does.
        model.optimizer.build(model.trainable_variables)
        model.compute_metrics(
            None, y, keras.ops.zeros((len(y), step_time.CLASSES)), None
        )
        state = tuple(
            [variable.value for variable in variables]
            for variables in (
                model.trainable_variables,
                model.non_trainable_variables,
                model.optimizer.variables,
                model.metrics_variables,
            )
        )
        step = jax.jit(model.train_step, donate_argnums=0)
        lowered[name] = step.lower(state, (x, y))
    rows = []
    for name, program in lowered.items():
        compiled = program.compile()
        costs, memory = compiled.cost_analysis(), compiled.memory_analysis()
        rows.append(
            [
                name,
                f"{costs['flops'] / 1e9:.3f}",
                f"{costs['bytes accessed'] / 2**20:.0f}",
                f"{memory.temp_size_in_bytes / 2**20:.0f}",
            ]
        )
    header = ["step", "10⁹ operations", "MiB read and written", "MiB of temporaries"]
    measuring.table(header, rows)
