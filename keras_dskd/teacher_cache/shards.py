"""A cache in parts, each written and read by a process of its own."""

import numbers
import os
import re

from keras_dskd.internal.types import FilePath, Nested, Shard
from keras_dskd.teacher_cache.inputs import Inputs
from keras_dskd.teacher_cache.manifest import MANIFEST

_NAME = re.compile(r"shard-(\d{5,})-of-(\d{5,})")


def shard_rows(samples: int, shard: Shard) -> slice:
    """Which rows of a data set are a process's own.

    Shards follow one another, and their sizes differ by one row at most: the smallest
    has `samples // count`. Processes that train together take equally many batches,
    `samples // count // batch_size` an epoch.

    Args:
        samples: Number of rows of the data set.
        shard: `(index, count)`, the process's number from 0 and the number of all.

    Returns:
        A `slice`.

    Raises:
        ValueError: If `samples` is no whole number, there is no such shard, or there
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
            "`samples` is the number of rows, such as len(labels). Received: "
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
    """Raises `ValueError` unless it is `(index, count)`; gives both as `int`."""
    is_pair = isinstance(shard, (tuple, list)) and len(shard) == 2
    is_whole = is_pair and all(isinstance(part, numbers.Integral) for part in shard)
    if not is_whole or not 0 <= shard[0] < shard[1]:
        raise ValueError(
            "`shard` is (index, count), whole numbers with 0 <= index < count. "
            f"Received: {shard!r}"
        )
    # NumPy's integers overflow, and no manifest can hold them.
    return int(shard[0]), int(shard[1])


def shard_path(path: FilePath, shard: Shard | None) -> str:
    """The folder of a shard, within that of the cache.

    Args:
        path: Folder of the cache.
        shard: `(index, count)`, or `None`: the cache is not divided.

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
            f'The teacher cache in "{path}" is in shards, "{counts[min(counts)]}" '
            f"among them. Pass shard=(index, {min(counts)}) to use it, another `path`, "
            f"or delete the folder. Received: shard={shard!r}"
        )
    if shard is None:
        return path
    if MANIFEST in entries:
        raise ValueError(
            f'The teacher cache in "{path}" is not in shards. Leave out `shard`, or '
            f"pass another `path`. Received: shard={shard!r}"
        )
    return os.path.join(path, f"shard-{index + 1:05d}-of-{count:05d}")


class Part:
    """A shard of `input_rows.Arrays` or `input_rows.Batches`, as these are.

    Args:
        inputs: The whole.
        shard: `(index, count)`.
    """

    def __init__(self, inputs: Inputs, shard: Shard) -> None:
        own = shard_rows(inputs.samples, shard)
        self.inputs, self.first = inputs, own.start
        self.samples = own.stop - own.start
        self.batch_size = inputs.batch_size

    def rows(self, start: int, stop: int) -> Nested:
        """The rows from `start` to before `stop`, counted from the shard's first."""
        return self.inputs.rows(self.first + start, self.first + stop)
