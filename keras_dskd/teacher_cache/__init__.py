"""KEEP: run the teacher once over a data set, and store its features by rows.

```
cache          runs the teacher, and opens finished caches
inputs         the teacher's inputs: arrays or a data set, read by rows
shards         the rows of one process of several
storage        the stored dtype, and its rounding error
feature_files  `.npy` files that grow by rows, with checksums
manifest       `manifest.json`: what was run on what, and how many rows are finished
manifest_form  which entries a manifest has, and of which types
```
"""

from keras_dskd.teacher_cache.cache import cache_features, open_teacher_cache
from keras_dskd.teacher_cache.shards import shard_rows

__all__ = ["cache_features", "open_teacher_cache", "shard_rows"]
