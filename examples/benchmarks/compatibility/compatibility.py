r"""Which architectures can be teacher and student, on the current backend.

    KERAS_BACKEND=torch python examples/benchmarks/compatibility/compatibility.py \
        --out lines.jsonl
    python examples/benchmarks/compatibility/compatibility.py --table lines.jsonl

Each architecture teaches another instance of itself. `recommended` picks the layers,
and `fit` takes two steps. Then the script evaluates, saves and loads the student, and
reads a feature map by its pyramid level. Weights are random, and nothing is downloaded.
An error is written to the line of the architecture, and the next one is tried.
"""

import argparse
import contextlib
import importlib.metadata
import json
import re
import sys
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
from architectures import ARCHITECTURES, CLASSES, build
from keras import ops

import keras_dskd
from keras_dskd.features import pyramid
from keras_dskd.features.taps import Tap, capture

#: The steps for each architecture, in order.
STEPS = ("build", "recommended", "fit", "evaluate", "save and load", "level")
BACKENDS = ("tensorflow", "jax", "torch")
SAMPLES = 4


def versions(library):
    """Versions of Keras, of the backend and of the library."""
    packages = {"keras", keras.backend.backend(), library.partition(".")[0]}
    # CPU builds of TensorFlow have another name.
    found = importlib.metadata.packages_distributions()
    return {
        package: importlib.metadata.version(found[package][0])
        for package in sorted(packages & set(found))
    }


def tried(architecture):
    """The record of one architecture on this backend."""
    record = {
        "library": architecture.library,
        "architecture": architecture.name,
        "backend": keras.backend.backend(),
        "versions": versions(architecture.library),
        "size": architecture.size,
        "parameters": None,
        "levels": [],
        "features": [],
        "done": [],
        "error": None,
    }
    start = time.perf_counter()
    try:
        for step in steps(architecture, record):
            record["done"].append(step)
    except Exception as error:  # Any error is a result.
        step = STEPS[len(record["done"])]
        record["error"] = f"{step}: {type(error).__name__}: {reason(error)}"
    record["seconds"] = round(time.perf_counter() - start, 1)
    return record


def steps(architecture, record):
    """Runs the `STEPS`, and yields each one after it has run."""
    keras.utils.set_random_seed(0)
    teacher, student = build(architecture), build(architecture)
    record["parameters"] = student.count_params()
    yield "build"
    distiller = keras_dskd.recommended(teacher, student, architecture.named)
    names = [loss.student_layer_name for loss in distiller.distillation_losses]
    record["features"] = [name for name in names if name]
    yield "recommended"
    random = np.random.default_rng(0)
    shape = (SAMPLES, architecture.size, architecture.size, 3)
    x = {
        "teacher": random.uniform(0, 255, shape).astype("float32"),
        "student": random.uniform(0, 255, shape).astype("float32"),
    }
    y = random.integers(0, CLASSES, SAMPLES)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(keras.optimizers.Adam(1e-4), loss)
    before = [np.array(weight) for weight in student.get_weights()]
    history = distiller.fit(x, y, batch_size=SAMPLES // 2, verbose=0).history
    check_finite(history)
    after = student.get_weights()
    if all(np.array_equal(a, b) for a, b in zip(before, after, strict=True)):
        raise ValueError("The student was not trained.")
    yield "fit"
    check_finite({"loss": distiller.evaluate(x["student"], y, verbose=0)})
    yield "evaluate"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "student.keras")
        distiller.student.save(path)
        loaded = keras.saving.load_model(path, compile=False)
    expected, found = (
        ops.convert_to_numpy(model(x["student"], training=False))
        for model in (student, loaded)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    yield "save and load"
    check_levels(student, x["student"], record)
    yield "level"


def reason(error):
    """The first line of an error's own message; backends add pages of details."""
    # Keras prints the original message in bold, after the name of the layer.
    bold = re.search("\x1b\\[1m(.+?)\x1b\\[0m", str(error), re.DOTALL)
    text = bold.group(1) if bold else str(error)
    return text.strip().partition("\n")[0][:300]


def check_levels(model, x, record):
    """Reads the map of each level of the model, and records the levels."""
    backbones = pyramid.backbones(model)
    try:
        levels = pyramid.levels(backbones[0][1] if backbones else model)
    except ValueError:
        return  # A model without feature maps has none.
    with capture([Tap(model, level) for level in levels]) as features:
        model(x, training=False)
    if not all(np.all(np.isfinite(ops.convert_to_numpy(f))) for f in features.values()):
        raise ValueError("A level's feature map is not finite.")
    record["levels"] = list(levels)


def check_finite(metrics):
    """Raises `ValueError` unless all numbers are finite."""
    if not all(np.all(np.isfinite(values)) for values in metrics.values()):
        raise ValueError(f"Not finite: {metrics}")


def table(records):
    """The lines of a Markdown table with one row per architecture, and the errors."""
    by_row = {}
    for record in records:
        row = by_row.setdefault((record["library"], record["architecture"]), {})
        row[record["backend"]] = record
    lines = [
        "| library | architecture | pyramid levels | features of `recommended` | "
        + " | ".join(BACKENDS)
        + " |",
        "|---" * (4 + len(BACKENDS)) + "|",
    ]
    for (library, name), found in by_row.items():
        best = max(found.values(), key=lambda record: len(record["done"]))
        features = ", ".join(f"`{feature}`" for feature in best["features"])
        cells = [
            library,
            name,
            ", ".join(best["levels"]) or "none",
            features or "none",
            *(_outcome(found.get(backend)) for backend in BACKENDS),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    errors = [
        f"- {record['library']} {record['architecture']}, {record['backend']}: "
        f"`{record['error']}`"
        for record in records
        if record["error"]
    ]
    return [*lines, "", *errors] if errors else lines


def _outcome(record):
    if record is None:
        return "not run"
    if record["error"]:
        return f"fails in {record['error'].partition(':')[0]}"
    return "works"


def main(argv=None):
    """Tries the architectures, or prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="file to which each try adds a line")
    parser.add_argument("--only", nargs="+", help="names of architectures to try")
    parser.add_argument("--table", type=Path, help="print the table from such files")
    arguments = parser.parse_args(argv)
    if arguments.table:
        lines = arguments.table.read_text().splitlines()
        print("\n".join(table([json.loads(line) for line in lines])))
        return
    for architecture in ARCHITECTURES:
        if arguments.only and architecture.name not in arguments.only:
            continue
        with contextlib.redirect_stdout(sys.stderr):  # The message of `recommended`.
            record = tried(architecture)
        line = json.dumps(record)
        print(line, flush=True)
        if arguments.out:
            with arguments.out.open("a") as file:
                file.write(line + "\n")
        keras.utils.clear_session()


if __name__ == "__main__":
    main()
