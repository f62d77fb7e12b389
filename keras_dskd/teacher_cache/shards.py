"""Caches in shards: each of several processes writes and reads its own rows."""

import numbers
import os
import re

from keras_dskd.internal.types import FilePath, Nested, Shard
from keras_dskd.teacher_cache.inputs import Inputs
from keras_dskd.teacher_cache.manifest import MANIFEST

_NAME = re.compile(r"shard-(\d{5,})-of-(\d{5,})")


def shard_rows(samples: int, shard: Shard) -> slice:
    """The rows of a data set that belong to one process of several.

    Shards follow one another, and their sizes differ by at most one row: the smallest
    has `samples // count` rows. Processes that train together must read the same number
    of batches, `samples // count // batch_size` per epoch.

    Args:
        samples: Number of rows of the data set.
        shard: `(index, count)`: the number of the process, from 0, and the number of
            processes.

    Returns:
        A `slice`.

    Raises:
        ValueError: If `samples` is not an integer, the shard does not exist, or there
            are fewer rows than shards.

    Example:
    ```python
    shard = (jax.process_index(), jax.process_count())
    own = keras_dskd.shard_rows(len(labels), shard)
    features = distiller.cache_teacher(optical, "cache", shard=shard)
    data = keras_dskd.ArrayDataset(
        {"student": radar[own], "teacher_features": features}, labels[own]
    )
    ```
    """
    index, count = check_shard(shard)
    if not isinstance(samples, numbers.Integral):
        raise ValueError(
            "`samples` must be the number of rows, such as len(labels). Received: "
            f"{type(samples).__name__}"
        )
    samples = int(samples)
    if count > samples:
        raise ValueError(
            f"There are more shards than rows. Received: shard={shard!r} of {samples} "
            "rows"
        )
    return slice(samples * index // count, samples * (index + 1) // count)


def check_shard(shard: Shard) -> Shard:
    """Checks that it is `(index, count)`, and returns both as `int`."""
    is_pair = isinstance(shard, (tuple, list)) and len(shard) == 2
    is_whole = is_pair and all(isinstance(part, numbers.Integral) for part in shard)
    if not is_whole or not 0 <= shard[0] < shard[1]:
        raise ValueError(
            "`shard` must be (index, count), integers with 0 <= index < count. "
            f"Received: {shard!r}"
        )
    # NumPy's integers may overflow, and JSON cannot store them.
    return int(shard[0]), int(shard[1])


def shard_path(path: FilePath, shard: Shard | None) -> str:
    """The folder of a shard, within the folder of the cache.

    Raises:
        ValueError: If the folder holds a cache that is divided in another way.
    """
    path = os.fspath(path)
    entries = os.listdir(path) if os.path.isdir(path) else []
    counts = {
        int(match[2]): entry
        for entry in sorted(entries)
        if (match := _NAME.fullmatch(entry))
    }
    index, count = (0, None) if shard is None else check_shard(shard)
    if counts and set(counts) != {count}:
        raise ValueError(
            f'The teacher cache in "{path}" is in shards, such as '
            f'"{counts[min(counts)]}". Pass shard=(index, {min(counts)}) to use it, '
            f"pass another `path`, or delete the folder. Received: shard={shard!r}"
        )
    if shard is None:
        return path
    if MANIFEST in entries:
        raise ValueError(
            f'The teacher cache in "{path}" is not in shards. Leave out `shard`, or '
            f"pass another `path`. Received: shard={shard!r}"
        )
    return os.path.join(path, f"shard-{index + 1:05d}-of-{count:05d}")


class InputShard:
    """The rows of `Inputs` that belong to one shard, as `Inputs`."""

    def __init__(self, inputs: Inputs, shard: Shard) -> None:
        own = shard_rows(inputs.samples, shard)
        self.inputs, self.first = inputs, own.start
        self.samples = own.stop - own.start
        self.batch_size = inputs.batch_size

    def rows(self, start: int, stop: int) -> Nested:
        """The rows from `start` up to `stop`, counted from the shard's first row."""
        return self.inputs.rows(self.first + start, self.first + stop)
