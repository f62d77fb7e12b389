r"""Bytes that each torch process passes to collectives for a loss, in one step.

    KERAS_BACKEND=torch torchrun --nproc_per_node 2 \
        examples/benchmarks/speed/replica_traffic.py

Prints one line per loss with the bytes by formula and the bytes counted, forward and
backward. The formulas leave out counts of rows, which are a few bytes per call.
"""

import argparse
import contextlib
import json
from unittest import mock

import keras
import numpy as np
import torch
from torch import distributed

from keras_dskd import losses

FLOAT = 4

# Each formula gives the numbers that a process sends. The process has r rows with c
# channels, and all processes have n rows. Teacher and student are equally wide.
_MOMENTS = "12 c"
_GATHERED = "2 r c + n c"
LOSSES = {
    "ChannelAlignment": (lambda: losses.ChannelAlignment(), _MOMENTS),
    "FitNet": (lambda: losses.FitNet(), _MOMENTS),
    'ChannelIndependence(target="teacher")': (
        lambda: losses.ChannelIndependence(),
        "12 c + 2 c c",
    ),
    'ChannelIndependence(target="self")': (
        lambda: losses.ChannelIndependence(target="self"),
        "6 c + 2 c c",
    ),
    "SpatialUniformity": (lambda: losses.SpatialUniformity(), "r c"),
    "SimilarityPreserving": (lambda: losses.SimilarityPreserving(), _GATHERED),
    "CenteredKernelAlignment": (lambda: losses.CenteredKernelAlignment(), _GATHERED),
    "RelationalDistillation": (lambda: losses.RelationalDistillation(), _GATHERED),
    "ContrastiveDistillation": (lambda: losses.ContrastiveDistillation(), _GATHERED),
    "SoftTargets": (lambda: losses.SoftTargets(), "0"),
}


def formula_bytes(formula, rows, channels, processes):
    """A formula's value: products of `r`, `c`, `n` and numbers, summed, in bytes."""
    known = {"r": rows, "c": channels, "n": rows * processes}
    numbers = 0
    for term in formula.split(" + "):
        numbers += np.prod([int(known.get(f, f)) for f in term.split()])
    return int(FLOAT * numbers)


@contextlib.contextmanager
def counted():
    """A context that counts the bytes passed to collectives, in `.bytes`."""
    count = mock.Mock(bytes=0)
    reduce, gather = distributed.all_reduce, distributed.all_gather

    def all_reduce(tensor, *args, **kwargs):
        count.bytes += tensor.numel() * tensor.element_size()
        return reduce(tensor, *args, **kwargs)

    def all_gather(parts, tensor, *args, **kwargs):
        count.bytes += tensor.numel() * tensor.element_size()
        return gather(parts, tensor, *args, **kwargs)

    with (
        mock.patch.object(distributed, "all_reduce", all_reduce),
        mock.patch.object(distributed, "all_gather", all_gather),
    ):
        yield count


def measure(rows, channels):
    """Counts a forward and a backward pass of each loss: a list of dicts."""
    rng = np.random.default_rng(distributed.get_rank())
    results = []
    for name, (make, formula) in LOSSES.items():
        teacher, student = (
            keras.ops.convert_to_tensor(rng.normal(size=(rows, channels)), "float32")
            for _ in range(2)
        )
        student.requires_grad_(True)
        with counted() as count:
            make().compute_loss(teacher, student).backward()
        world = distributed.get_world_size()
        results.append(
            {
                "loss": name,
                "formula": formula,
                "formula_bytes": formula_bytes(formula, rows, channels, world),
                "counted_bytes": count.bytes,
            }
        )
    return results


def main():
    """Prints the table, from the first process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=64, help="of each process")
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument("--out", help="a .json file for the results")
    arguments = parser.parse_args()
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    results = measure(arguments.rows, arguments.channels)
    if distributed.get_rank() == 0:
        print(
            f"{distributed.get_world_size()} processes, {arguments.rows} rows each, "
            f"{arguments.channels} channels\n\n"
            "| loss | floats | by formula | counted |\n|---|---|---|---|"
        )
        for line in results:
            print(
                f"| `{line['loss']}` | {line['formula']} | "
                f"{line['formula_bytes']:,} B | {line['counted_bytes']:,} B |"
            )
        if arguments.out:
            with open(arguments.out, "w", encoding="utf-8") as file:
                json.dump(results, file, indent=1)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
