"""Cross-modal knowledge distillation with dimensional structure, for Keras 3.

```
fit({"teacher": x_t, "student": x_s}, y, sample_weight)
   data       split one batch by modality
   features   one forward pass of each model; capture the outputs of named layers
   losses     the student's own loss + each distillation loss (teacher detached)
   distiller  weighted total, one metric per loss
cache_teacher(x_t): the teacher's features, once; fit takes them instead of x_t
predict(x_s), evaluate(x_s, y): the student alone; the teacher is not called
distiller.student: a plain Keras model
```
"""

from keras_dskd import callbacks, layers, losses, ops
from keras_dskd.callbacks import StructureHistory
from keras_dskd.choice import choose
from keras_dskd.data.augmentation import AugmentedPairs
from keras_dskd.data.dataset import ArrayDataset, CachedDataset
from keras_dskd.data.labeled_share import LabeledShare
from keras_dskd.data.mixup import MixedPairs
from keras_dskd.data.unlabeled import with_unlabeled
from keras_dskd.distiller import Distiller
from keras_dskd.internal.version import __version__
from keras_dskd.recipes import dskd, recommended
from keras_dskd.structure import check_pairs, structure_report
from keras_dskd.structure.figures import plot_history
from keras_dskd.teacher_cache import open_teacher_cache, shard_rows

__all__ = [
    "ArrayDataset",
    "AugmentedPairs",
    "CachedDataset",
    "Distiller",
    "LabeledShare",
    "MixedPairs",
    "StructureHistory",
    "__version__",
    "callbacks",
    "check_pairs",
    "choose",
    "dskd",
    "layers",
    "losses",
    "ops",
    "open_teacher_cache",
    "plot_history",
    "recommended",
    "shard_rows",
    "structure_report",
    "with_unlabeled",
]
