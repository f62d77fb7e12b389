"""Choose by validation rows what the teacher is good for.

```
choose      train the candidates, score them, keep the best
candidates  the student alone, soft targets, recommended
scores      one number per validation row
result      Choice: the best candidate, gains with intervals, the table
```
"""

from keras_dskd.choice.choose import choose
from keras_dskd.choice.result import Choice

__all__ = ["Choice", "choose"]
