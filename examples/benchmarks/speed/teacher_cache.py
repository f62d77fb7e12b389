r"""Measure the savings and the costs of a teacher cache.

The script times training steps with the teacher, with its features from several kinds
of caches, and of the student alone, in one process and in turns. Each side repeats the
same steps after a warm-up. Memory is that of an epoch in a separate process. Then the
script measures the cost of the cache: disk space, time to write and to verify, and the
changes by float16 in features and losses.

    python examples/benchmarks/speed/teacher_cache.py \
        [--data file.npz] [--out results.json]

The file has the format of `optical_to_radar.py`. Without a file, the script uses
scikit-learn's digits and a degraded copy of them. The models are not trained before,
because times do not depend on training.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import keras
import numpy as np

import keras_dskd

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import digits
import optical_to_radar
from models import cnn

BATCH = 64


class PeakMemory:
    """Peak of a process's anonymous memory, above its memory at the start.

    Pages of memory-mapped files are not counted, because the system can reclaim them.
    The memory is read every 5 ms from /proc. On other systems, the peak is `None`.
    """

    def __enter__(self):
        self.start, self.peak, self.is_over = self._now(), 0, threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.is_over.set()
        self.thread.join()

    @property
    def megabytes(self):
        """The peak, in MB."""
        return None if self.start is None else max(0, self.peak - self.start) / 1e6

    def _watch(self):
        while self.start is not None and not self.is_over.wait(0.005):
            self.peak = max(self.peak, self._now())

    def _now(self):
        try:
            with open("/proc/self/status") as file:
                lines = dict(line.split(":", 1) for line in file)
        except OSError:
            return None
        return int(lines["RssAnon"].split()[0]) * 1024


def distiller(data, widths):
    """A distiller that reads a feature map, features and logits of a wider teacher."""
    keras.utils.set_random_seed(0)
    teacher = cnn(data.strong_train.shape[1:], data.classes, widths, "teacher")
    student = cnn(data.weak_train.shape[1:], data.classes, (16, 32, 64), "student")
    made = keras_dskd.Distiller(
        teacher,
        student,
        [
            keras_dskd.losses.SoftTargets(4.0),
            keras_dskd.losses.ChannelAlignment("features", "features"),
            keras.distillation.FeatureDistillation("mse", "block2", "block2"),
        ],
        projectors={
            "features": keras.layers.Dense(widths[-1]),
            "block2": keras.layers.Conv2D(widths[1], 1),
        },
    )
    made.compile(keras.optimizers.SGD(0.0), crossentropy())
    return made


def crossentropy():
    """The loss for labels."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def timed(function):
    """Seconds that a call takes, and its result."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def epochs(made, data, opened):
    """One epoch of each side, by name, as functions without arguments.

    Args:
        made: The distiller.
        data: The training data.
        opened: Function of "memory", "disk" or "float16" that returns the cache.
    """
    weak, y = data.weak_train, data.y_train
    alone = keras.models.clone_model(made.student)
    alone.compile(keras.optimizers.SGD(0.0), crossentropy())

    def cached(name):
        return {"student": weak, "teacher_features": opened(name)}

    def fit(x, model=made):
        model.fit(x, y, batch_size=BATCH, verbose=0)

    def fit_rows(name):
        dataset = keras_dskd.ArrayDataset(cached(name), y, batch_size=BATCH, seed=0)
        made.fit(dataset, shuffle=False, verbose=0)

    return {
        "student alone": lambda: fit(weak, alone),
        "with the teacher": lambda: fit(
            {"teacher": data.strong_train, "student": weak}
        ),
        "cache in memory": lambda: fit(cached("memory")),
        "cache on disk": lambda: fit(cached("disk")),
        "cache on disk, ArrayDataset": lambda: fit_rows("disk"),
        "float16 on disk": lambda: fit(cached("float16")),
        "float16 on disk, ArrayDataset": lambda: fit_rows("float16"),
    }


def open_cache(folder, name):
    """The cache with this name. The cache in memory is read from disk."""
    if name == "memory":
        return {
            key: np.array(array) for key, array in open_cache(folder, "disk").items()
        }
    return keras_dskd.open_teacher_cache(folder / name, verify=False)


def memory_of(side, folder, arguments):
    """The peak memory of an epoch in a new process, including compilation."""
    command = [sys.executable, __file__, "--memory-of", side, "--folder", str(folder)]
    command += ["--samples", str(arguments.samples), "--widths"]
    command += map(str, arguments.widths)
    if arguments.data:
        command += ["--data", str(arguments.data)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(result.stdout.splitlines()[-1])


def measure_steps(sides, steps, rounds):
    """Milliseconds per step, for each side and round."""
    for epoch in sides.values():
        epoch()
    milliseconds = {name: [] for name in sides}
    for _ in range(rounds):
        for name, epoch in sides.items():
            milliseconds[name].append(1000 * timed(epoch)[0] / steps)
    return milliseconds


def write_caches(made, x, folder):
    """The caches by name, and a row of numbers for each."""
    caches, rows = {}, {}
    for name, options in (
        ("memory", {}),
        ("disk", {"path": folder / "disk"}),
        ("float16", {"path": folder / "float16", "dtype": "float16"}),
    ):
        seconds, caches[name] = timed(
            lambda options=options: made.cache_teacher(
                x, batch_size=BATCH, verbose=0, **options
            )
        )
        size = sum(array.nbytes for array in caches[name].values())
        rows[name] = {"MB": size / 1e6, "written, s": seconds}
        if "path" in options:
            for key, verify in (("verify, s", True), ("open, s", False)):
                rows[name][key] = timed(
                    lambda options=options, verify=verify: (
                        keras_dskd.open_teacher_cache(options["path"], verify)
                    )
                )[0]
    return caches, rows


def costs_of_float16(made, data, caches, folder):
    """Relative errors of each feature, and of each value that `fit` reports."""
    manifest = json.loads((folder / "float16" / "manifest.json").read_text())
    errors = {
        f"feature {name}": (error / squares) ** 0.5
        for name, (error, squares) in manifest["rounding"].items()
    }
    values = [
        made.fit(
            {"student": data.weak_train, "teacher_features": caches[name]},
            data.y_train,
            batch_size=BATCH,
            shuffle=False,
            verbose=0,
        ).history
        for name in ("memory", "float16")
    ]
    for name, (exact,) in values[0].items():
        errors[name] = abs(values[1][name][0] / exact - 1)
    return errors


def table(header, rows):
    """Prints a table in Markdown."""
    print("\n| " + " | ".join(header) + " |\n" + "|---" * len(header) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


def number(value):
    """A number with three significant digits."""
    return "" if value is None else f"{value:.3g}"


def spread(values):
    """Median, and the lower and upper quartile."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:.3g} [{low:.3g}, {high:.3g}]"


def main():
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="an .npz file of paired images")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--widths", type=int, nargs=3, default=(64, 128, 256))
    parser.add_argument("--out", type=Path, help="file for the numbers, as JSON")
    parser.add_argument("--memory-of", help="a side, measured alone")
    parser.add_argument("--folder", type=Path, help="cache folder, with --memory-of")
    arguments = parser.parse_args()
    data = optical_to_radar.load(arguments.data) if arguments.data else digits.load()
    for part in ("strong_train", "weak_train", "y_train"):
        # Only full batches: one program per side.
        kept = min(arguments.samples, len(data.y_train)) // BATCH * BATCH
        object.__setattr__(data, part, getattr(data, part)[:kept])
    made = distiller(data, arguments.widths)
    if arguments.memory_of:
        sides = epochs(made, data, lambda name: open_cache(arguments.folder, name))
        with PeakMemory() as peak:
            sides[arguments.memory_of]()
        print(json.dumps(peak.megabytes))
        return
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        # Compiles the teacher's program, as each cache does.
        made.cache_teacher(data.strong_train[:BATCH], batch_size=BATCH, verbose=0)
        caches, written = write_caches(made, data.strong_train, folder)
        steps = kept // BATCH
        sides = epochs(made, data, caches.get)
        milliseconds = measure_steps(sides, steps, arguments.rounds)
        memory = {side: memory_of(side, folder, arguments) for side in sides}
        errors = costs_of_float16(made, data, caches, folder)
    print(
        f"keras {keras.__version__} on {keras.backend.backend()}, {os.cpu_count()} "
        f"cores; {arguments.data.stem if arguments.data else 'digits'}, {kept} "
        f"samples, {steps} steps of {BATCH}, {arguments.rounds} rounds; teacher "
        f"{tuple(arguments.widths)}"
    )
    alone = milliseconds["student alone"]
    table(
        ["side", "ms per step", "times the student alone", "peak memory, MB"],
        (
            [
                name,
                spread(values),
                # From the same round, so that other load affects both.
                spread(np.divide(values, alone)),
                number(memory[name]),
            ]
            for name, values in milliseconds.items()
        ),
    )
    columns = ["MB", "written, s", "verify, s", "open, s"]
    table(
        ["cache", *columns],
        (
            [name, *(number(row.get(column)) for column in columns)]
            for name, row in written.items()
        ),
    )
    table(
        ["float16", "relative error"],
        ([name, f"{error:.1e}"] for name, error in errors.items()),
    )
    if arguments.out:
        results = {
            "backend": keras.backend.backend(),
            "keras": keras.__version__,
            "samples": kept,
            "ms_per_step": milliseconds,
            "peak_mb": memory,
            "caches": written,
            "float16_errors": errors,
        }
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
