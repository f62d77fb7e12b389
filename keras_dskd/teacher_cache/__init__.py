"""Run the teacher once over a data set, and replay its features by rows.

```
cache          the run, and opening what it left
inputs         what is run: arrays or a data set, by rows
storage        the dtype that is stored, and what it costs
feature_files  `.npy` files that grow by rows
manifest       what is on disk, and of what
shards         parts, one a process
```
"""

from keras_dskd.teacher_cache.cache import cache_features, open_teacher_cache
from keras_dskd.teacher_cache.shards import shard_rows

__all__ = ["cache_features", "open_teacher_cache", "shard_rows"]
