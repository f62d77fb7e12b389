"""Run the teacher once over a data set, and replay its features by rows.

```
caching        the run, and opening what it left
input_rows     what is run: arrays or a data set, by rows
storage        the dtype that is stored, and what it costs
feature_files  `.npy` files that grow by rows
manifest       what is on disk, and of what
shards         parts, one a process
dataset        batches of rows, for caches larger than memory
mapped         memory-mapped arrays by their place, for worker processes
```
"""

from keras_dskd.teacher_cache.caching import cache, open_teacher_cache
from keras_dskd.teacher_cache.dataset import CachedDataset
from keras_dskd.teacher_cache.shards import shard_rows

__all__ = ["CachedDataset", "cache", "open_teacher_cache", "shard_rows"]
