"""Shared tools of the benchmarks: fair timing, peak memory, tables and files.

Sides are timed in turns, A B C, C A B, …, in one process, after a warm-up of each side,
so that other load on the machine affects all sides equally. A ratio is the median of
the ratios of all rounds, so a slow minute hardly changes it. Memory is measured in a
separate process for each side.
"""

import datetime
import gc
import json
import os
import platform
import random
import resource
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from backend_switch import move_to


def parse(parser, rounds):
    """Parses the arguments that all benchmarks share, and selects the backend.

    Args:
        parser: An `argparse.ArgumentParser`.
        rounds: Default number of rounds.

    Returns:
        The parsed arguments. If `--backend` differs from the current backend, the
        script restarts, because Keras reads the backend during its import.
    """
    parser.add_argument("--backend", choices=["jax", "tensorflow", "torch"])
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    # For the processes that measure memory.
    parser.add_argument("--memory-of", help="measure the memory of only this side")
    arguments = parser.parse_args()
    move_to(arguments.backend)
    return arguments


def backend():
    """Name of the Keras backend."""
    import keras

    return keras.backend.backend()


def block(result=None):
    """Waits until the device has computed a result.

    Args:
        result: A structure of tensors. Without it, waits for all pending work of the
            device, on torch.
    """
    if backend() == "jax":
        import jax

        jax.block_until_ready(result)
    elif backend() == "torch":
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
    elif result is not None:
        import keras

        for leaf in keras.tree.flatten(result):
            np.asarray(leaf)


def interleave(sides, rounds, warmups=1):
    """Times sides in turns.

    Args:
        sides: Dict of name -> function without arguments. The timing includes the wait
            for its result.
        rounds: How often each side is timed.
        warmups: Calls of each side before the timing, which include compilation.

    Returns:
        Dict of name -> list of seconds, one per round.
    """
    for _ in range(warmups):
        for run in sides.values():
            block(run())
    times = {name: [] for name in sides}
    shuffled = random.Random(0)
    gc.collect()
    gc.disable()  # A garbage collection would affect only one side.
    try:
        for _ in range(rounds):
            order = list(sides)
            shuffled.shuffle(order)
            for name in order:
                start = time.perf_counter()
                block(sides[name]())
                times[name].append(time.perf_counter() - start)
            gc.collect()
    finally:
        gc.enable()
    return times


def quartiles(values):
    """Median and the quartiles, as `{"median": ..., "low": ..., "high": ...}`."""
    low, median, high = np.percentile(values, [25, 50, 75])
    return {"median": float(median), "low": float(low), "high": float(high)}


def ratio(times, others):
    """Quartiles of the ratios of all rounds."""
    return quartiles(np.asarray(times) / np.asarray(others))


def in_words(summary, scale=1.0, digits=2):
    """`median [low, high]`."""
    median, low, high = (
        f"{scale * summary[key]:.{digits}f}" for key in ("median", "low", "high")
    )
    return f"{median} [{low}, {high}]"


def growth_of_peak(run):
    """How far the peak memory rises above the memory in use before, in bytes.

    On torch with CUDA, it is the device's memory. Otherwise it is that of the process.
    """
    gc.collect()
    if backend() == "torch":
        import torch

        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            block(run())
            return torch.cuda.max_memory_allocated() - before
    before = _reset_peak()
    block(run())
    return _peak() - before


def _reset_peak():
    try:
        # Linux: reset the peak.
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass
    return _peak()


def _peak():
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        unit = 1 if platform.system() == "Darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    # Not `ru_maxrss`, because a process inherits it from its parent.
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def in_own_process(side, *options):
    """Starts this script again for the memory of one side.

    Args:
        side: Name of the side, passed as `--memory-of`.
        *options: Further arguments.

    Returns:
        The last line that the process printed, read as JSON.

    Raises:
        RuntimeError: If it failed.
    """
    command = [sys.executable, sys.argv[0], "--memory-of", side, *map(str, options)]
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend(),
        # glibc: return freed memory at once, so that it no longer counts.
        "MALLOC_MMAP_THRESHOLD_": "65536",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def about():
    """Versions, machine, date and arguments, to store with a result."""
    packages = ("keras", "numpy", "jax", "tensorflow", "tensorflow-cpu", "torch")
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "backend": backend(),
        "device": device(),
        "cpu_count": os.cpu_count(),
        "load_average": os.getloadavg(),
        "python": platform.python_version(),
        "versions": versions,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat("T", "minutes"),
        "argv": sys.argv,
    }


def device():
    """Name of the device that computes."""
    if backend() == "torch":
        import torch

        if torch.cuda.is_available():
            return torch.cuda.get_device_name()
    if backend() == "jax":
        import jax

        return jax.devices()[0].device_kind
    return "cpu"


def table(header, rows):
    """Prints a Markdown table."""
    print(f"\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")
    print(flush=True)


def write(path, results):
    """Writes results and `about` as JSON; writes nothing without a path."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**about(), **results}, indent=2) + "\n")
    print(f"Wrote {path}")
