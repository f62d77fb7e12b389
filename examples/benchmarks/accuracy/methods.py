r"""Compares distillation methods on paired data, run by run.

    python examples/benchmarks/accuracy/methods.py --backend torch \
        --data digits pairs.npz

For a given seed, all methods share the rows, the trained teacher, the student's initial
weights and the order of batches. Each run adds a line to `runs.jsonl` in `--out` when
it ends. To continue an interrupted job, repeat the same command.

With `--labeled`, few rows have labels: the student alone trains on these rows, and each
method on all pairs, for the same number of steps. The group `few` has methods for this
case.

Make choices on a fifth of the training rows (`--on validation`). `--on test` trains on
all training rows and scores on the test rows. `method_tables.py` makes tables and
figures.
"""

import argparse
import itertools
import sys
from pathlib import Path

import data_sets
import keras
from epoch_choice import best_epochs, trained_on
from method_list import GROUPS, METHODS, chosen
from records import Records, read
from run_settings import STEPS, Settings
from runs import SeedRuns

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from backend_switch import move_to
from training import Progress


def parse(argv):
    """The command line's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        nargs="+",
        required=True,
        help=f"{', '.join(data_sets.NAMES)} or .npz files as optical_to_radar.py takes",
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["methods", "controls", "baselines"],
        help="names, name@weight, or groups. " + _listed(),
    )
    parser.add_argument(
        "--seeds",
        type=seed_range,
        default=range(5),
        help="how many, counted from 0, or a range as in 5-9 (default: 5)",
    )
    parser.add_argument("--backend", choices=["jax", "tensorflow", "torch"])
    parser.add_argument("--out", type=Path, default=Path("out/methods"))
    parser.add_argument(
        "--on",
        choices=["validation", "test"],
        default="validation",
        help="the rows to score on (default: validation)",
    )
    parser.add_argument(
        "--degrade",
        nargs="+",
        default=[None],
        metavar="NAME:STRENGTH",
        help="make the weak modality from the strong one, each in turn: "
        f"{', '.join(data_sets.degradations.DEGRADATIONS)}, of strength 0 to 1",
    )
    parser.add_argument("--limit", type=positive, help="maximum of training rows")
    some = parser.add_mutually_exclusive_group()
    some.add_argument(
        "--labeled",
        type=share,
        metavar="ROWS",
        help="number of rows with labels, or their share if below 1 (default: all). "
        "Methods train on all pairs, and the student alone on the rows with labels",
    )
    some.add_argument(
        "--labeled-scenes",
        type=positive,
        metavar="N",
        help="the same as a number of whole scenes, or persons",
    )
    parser.add_argument(
        "--teacher-rows",
        choices=["all", "labeled"],
        default="all",
        help="rows that the teacher learns from (default: all)",
    )
    parser.add_argument(
        "--pairs",
        type=positive,
        metavar="N",
        help="pairs that methods train on, those with labels included (default: all). "
        "The teacher still learns from --teacher-rows",
    )
    lengths = parser.add_mutually_exclusive_group()
    lengths.add_argument(
        "--epochs",
        type=positive,
        nargs="+",
        default=[None],
        help=f"of the students, each in turn (default: as many as make {STEPS} steps)",
    )
    lengths.add_argument(
        "--best-epochs",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="instead: for each method, the number that was best on validation rows, "
        "from these files of `--on validation --epochs ...`",
    )
    parser.add_argument(
        "--teacher-epochs",
        type=positive,
        help=f"default: as many as make {STEPS} steps",
    )
    parser.add_argument("--batch-size", type=positive, default=64)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    for role in ("teacher", "student"):
        parser.add_argument(
            f"--{role}-widths",
            type=positive,
            nargs="+",
            metavar="CHANNELS",
            help=f"of the {role}'s blocks, from three on; as many for both",
        )
    parser.add_argument(
        "--mix",
        type=share,
        default=0.0,
        metavar="A",
        help="mix pairs within a batch, with shares from Beta(A, A) (default: do not "
        "mix). The teacher then runs in each step",
    )
    parser.add_argument(
        "--network",
        choices=["cnn", "resnet"],
        default="cnn",
        help="for images: plain blocks, or two residual blocks of each width",
    )
    return parser.parse_args(argv)


def seed_range(text):
    """`"3"` is 0, 1, 2, and `"5-7"` is 5, 6, 7."""
    first, dash, last = text.partition("-")
    seeds = range(int(first), int(last) + 1) if dash else range(int(first))
    if not seeds:
        raise ValueError
    return seeds


def positive(text):
    """A whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def share(text):
    """A number from 0 on."""
    number = float(text)
    if not 0 <= number < float("inf"):
        raise ValueError
    return number


def settings_of(arguments, epochs=None):
    """The settings for all trainings with a given number of epochs."""
    return Settings(
        split=arguments.on,
        limit=arguments.limit,
        epochs=epochs,
        teacher_epochs=arguments.teacher_epochs,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        teacher_widths=arguments.teacher_widths,
        student_widths=arguments.student_widths,
        mix=arguments.mix,
        network=arguments.network,
        labeled=arguments.labeled,
        labeled_scenes=arguments.labeled_scenes,
        teacher_rows=arguments.teacher_rows,
        pairs=arguments.pairs,
    )


def plan(arguments, records):
    """The remaining runs: `(source, degrade, seed, settings, names of methods)`.

    This also finds mistakes in the arguments before the first training.
    """
    missing = []
    for source, degrade in itertools.product(arguments.data, arguments.degrade):
        data_set = data_sets.load(source, degrade)
        methods = chosen(arguments.methods, data_set.axes)
        by_epochs = methods_by_epochs(arguments, data_set, methods)
        for seed, (epochs, names) in itertools.product(
            arguments.seeds, by_epochs.items()
        ):
            settings = settings_of(arguments, epochs)
            of_seed = SeedRuns(data_set, seed, settings)
            of_seed.rows("all")
            names = [
                name
                for name in ("teacher", *names)
                if of_seed.identity(name, methods.get(name)) not in records
            ]
            if names:
                missing.append((source, degrade, seed, settings, names))
    return missing


def methods_by_epochs(arguments, data_set, methods):
    """Dict of number of epochs -> names of the methods to train with it."""
    if arguments.best_epochs is None:
        return dict.fromkeys(arguments.epochs, tuple(methods))
    best = best_epochs(read(arguments.best_epochs))
    identity = SeedRuns(data_set, 0, settings_of(arguments)).identity("any")
    of_data = best.get(trained_on(identity), {})
    missing = [name for name in methods if name not in of_data]
    if missing:
        raise SystemExit(
            f"--best-epochs has no line of {data_set.name} with limit "
            f"{arguments.limit} for {', '.join(missing)}."
        )
    found = {}
    for name in methods:
        found.setdefault(of_data[name], []).append(name)
    return found


def main(argv=None):
    """Does all remaining runs."""
    arguments = parse(argv)
    move_to(arguments.backend)
    arguments.out.mkdir(parents=True, exist_ok=True)
    records = Records(arguments.out / "runs.jsonl")
    missing = plan(arguments, records)
    progress = Progress(sum(len(names) for *_, names in missing))
    loaded = None
    for source, degrade, seed, settings, names in missing:
        if loaded != (source, degrade):
            data_set, loaded = data_sets.load(source, degrade), (source, degrade)
        of_seed = SeedRuns(data_set, seed, settings, arguments.out / "teachers")
        for name in names:
            label = " ".join(filter(None, (data_set.name, data_set.degrade)))
            progress.next(f"{label}, seed {seed}, {name}")
            if name == "teacher":
                record = of_seed.run_teacher()
            else:
                methods = chosen([name], data_set.axes)
                record = of_seed.run(name, methods[name])
            records.add(record)
            # Compiled programs would pile up over hundreds of runs.
            keras.utils.clear_session()
    progress.done()
    print(f"Runs are in {records.path}; for tables: method_tables.py {records.path}")


def _listed():
    return "; ".join(
        f"{group}: {', '.join(k for k, m in METHODS.items() if m.group == group)}"
        for group in GROUPS
    )


if __name__ == "__main__":
    main()
