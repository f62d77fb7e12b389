"""Trains on a part of each batch: the program of each process in `test_torch.py`."""

import json
import sys
from pathlib import Path

import distributed_torch
import keras
import planted
import replica_traffic
import replicated
from torch import distributed

import keras_dskd


def normalization():
    """A synchronized layer with the name of a plain one."""
    config = keras.layers.BatchNormalization().get_config()
    return distributed_torch.SynchronizedBatchNormalization.from_config(config)


def train(kind, rows, **options):
    """Like `replicated.fit`, on several processes."""
    made = replicated.distiller(kind, normalization, **options)
    x, y, weight = replicated.inputs(kind, rows)
    batches = distributed_torch.own_batches(
        x, y, replicated.BATCH, sample_weight=weight, shuffle=False
    )
    steps = []
    distributed_torch.train(
        made, batches, 1, lambda logs: steps.append(replicated.state(made, logs))
    )
    return steps


def train_on_shards(kind, rows, path):
    """The same, with rows and cached features per process."""
    shard = (distributed.get_rank(), distributed.get_world_size())
    made = replicated.distiller(kind, normalization)
    x, y, weight = replicated.inputs(kind, rows)
    features = made.cache_teacher(x.pop("teacher"), path, verbose=0, shard=shard)
    x, y, weight = keras.tree.map_structure(
        lambda array: array[keras_dskd.shard_rows(rows, shard)], (x, y, weight)
    )
    batches = keras_dskd.ArrayDataset(
        {**x, "teacher_features": features},
        y,
        weight,
        batch_size=replicated.BATCH // shard[1],
        shuffle=False,
    )
    steps = []
    distributed_torch.train(
        made,
        lambda: map(batches.__getitem__, range(len(batches))),
        1,
        lambda logs: steps.append(replicated.state(made, logs)),
    )
    return steps


def main(out):
    """Writes the recordings of the first process to a folder."""
    distributed_torch.start()
    recorded = {kind: train(kind, replicated.ROWS) for kind in replicated.LOSSES}
    for name, mistake in planted.MISTAKES.items():
        with mistake():
            recorded[name] = train("moments", replicated.BATCH)
    full = replicated.STEPS * replicated.BATCH
    recorded["shards"] = train_on_shards("samples", full, out / "cache")
    recorded["half"] = train(
        "samples", replicated.BATCH, scope=replicated.half_precision
    )
    traffic = replica_traffic.measure(rows=6, channels=40)
    made = replicated.distiller("samples")
    try:
        made.fit(*replicated.inputs("samples", replicated.BATCH)[:2])
    except RuntimeError as error:
        (out / f"refused_{distributed.get_rank()}").write_text(str(error))
    if distributed.get_rank() == 0:
        (out / "traffic.json").write_text(json.dumps(traffic))
        for name, steps in recorded.items():
            replicated.save(out / f"{name}.npz", steps)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
