"""Callbacks for `fit`.

```
structure_history  StructureHistory: dimensional structure in fit's logs
ema_teacher        EMATeacher: a teacher that follows the student (mean teacher)
```
"""

from keras_dskd.callbacks.ema_teacher import EMATeacher
from keras_dskd.callbacks.structure_history import StructureHistory

__all__ = ["EMATeacher", "StructureHistory"]
