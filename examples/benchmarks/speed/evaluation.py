"""Compare the cost of a distiller's `evaluate` and `predict` with its student's.

    python examples/benchmarks/speed/evaluation.py --backend jax --out evaluation.json

The teacher has 100 million weights and does not run. The student is a small
convolutional network on 32x32 images. Both sides evaluate the same student, with the
same loss and metric, in batches of 64.
"""

import argparse
import json

import keras
import measuring
import numpy as np
import step_time

import keras_dskd

BATCH = 64


def teacher(width=5000, depth=5):
    """A large model, whose time and memory would be visible."""
    x = inputs = keras.Input((64,))
    for _ in range(depth):
        x = keras.layers.Dense(width, "relu")(x)
    return keras.Model(inputs, keras.layers.Dense(step_time.CLASSES)(x), name="teacher")


class Setting:
    """Data, a student, and a distiller that holds the same student."""

    def __init__(self, rows):
        random = np.random.default_rng(0)
        self.x = random.normal(size=(rows, 32, 32, 1)).astype("float32")
        self.y = random.integers(step_time.CLASSES, size=rows).astype("int32")
        widths = step_time.SIZES["small"][1]
        student = step_time.network(1, widths, None, "student", 32)
        self.models = {
            "student": student,
            "ours": keras_dskd.Distiller(
                teacher(), student, keras_dskd.losses.SoftTargets()
            ),
        }
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        for model in self.models.values():
            model.compile("adam", loss, metrics=["accuracy"])

    def side(self, task, name):
        """A function without arguments that runs a task of one side."""
        model = self.models[name]
        if task == "predict":
            return lambda: model.predict(self.x, BATCH, verbose=0)
        return lambda: model.evaluate(self.x, self.y, BATCH, verbose=0)


def main():
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=4096)
    arguments = measuring.parse(parser, rounds=9)
    setting = Setting(arguments.rows)
    if arguments.memory_of:
        run = setting.side(*arguments.memory_of.split())
        run()
        print(json.dumps(measuring.growth_of_peak(run)))
        return
    results, rows = {}, []
    for task in ("evaluate", "predict"):
        names = list(setting.models)
        times = measuring.interleave(
            {name: setting.side(task, name) for name in names}, arguments.rounds
        )
        memory = {
            name: measuring.in_own_process(f"{task} {name}", "--rows", arguments.rows)
            for name in names
        }
        ratio = measuring.ratio(times["ours"], times["student"])
        results[task] = {"seconds": times, "ratio": ratio, "memory": memory}
        seconds = (
            measuring.in_words(measuring.quartiles(times[name])) for name in names
        )
        megabytes = (f"{memory[name] / 1e6:.0f}" for name in names)
        rows.append([task, *seconds, measuring.in_words(ratio), *megabytes])
    header = ["", "student, s", "ours, s", "ours / student"]
    measuring.table([*header, "student, MB", "ours, MB"], rows)
    measuring.write(arguments.out, results)


if __name__ == "__main__":
    main()
