"""A data set with a fixed number of labeled rows in each batch."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_dskd.data.arrays import dense
from keras_dskd.data.dataset import ArrayDataset
from keras_dskd.internal.types import Nested


class LabeledShare(ArrayDataset):
    """Batches of which a fixed number of rows have labels.

    If few of many pairs have labels, a batch that is drawn at random holds few of them,
    or none. Here each batch holds `labeled_rows` rows with labels, which repeat within
    an epoch, and beside them rows without labels. An epoch is one pass over the rows
    without labels. In an epoch, the numbers of times that two labeled rows are drawn
    differ by one at most.

    Args:
        x: The input of `fit`, with a `"label_mask"`: what
            `keras_dskd.with_unlabeled` returned, or `{"teacher": ..., "student": ...,
            "label_mask": ...}`.
        y: Labels of all rows. Those of rows without labels are not read.
        sample_weight: Weights of the samples, or `None`.
        batch_size: Rows per batch. The last batch of an epoch may be smaller.
        labeled_rows: Rows with labels per batch. Defaults to a quarter of `batch_size`,
            or to all labeled rows if there are fewer.
        **kwargs: Further arguments of `keras_dskd.ArrayDataset`.

    Raises:
        ValueError: If there is no mask, no row with labels, or no row without them, or
            if `labeled_rows` leaves no place for one kind of row.

    Example:
    ```python
    x, y = keras_dskd.with_unlabeled(
        {"teacher": optical[:16], "student": radar[:16]},
        labels[:16],
        {"teacher": optical[16:], "student": radar[16:]},
    )
    data = keras_dskd.LabeledShare(x, y, batch_size=32, labeled_rows=8)
    distiller.fit(data, epochs=20, shuffle=False)
    ```
    """

    def __init__(
        self,
        x: Nested,
        y: Nested,
        sample_weight: Nested = None,
        batch_size: int = 32,
        labeled_rows: int | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(x, dict) or x.get("label_mask") is None:
            raise ValueError(
                '`LabeledShare` needs x["label_mask"], as `with_unlabeled` returns it. '
                f"Received: {sorted(x) if isinstance(x, dict) else type(x).__name__}"
            )
        super().__init__(x, y, sample_weight, batch_size, **kwargs)
        mask = dense(self.arrays["x"]["label_mask"][:])
        if mask.shape[1:] not in ((), (1,)):
            raise ValueError(
                'x["label_mask"] must be an array of shape (n,), true for rows with '
                f"labels. Received: shape {mask.shape}"
            )
        mask = mask.reshape(-1).astype(bool)
        self._labeled, self._others = np.flatnonzero(mask), np.flatnonzero(~mask)
        if not len(self._labeled) or not len(self._others):
            raise ValueError(
                "Expected rows with and without labels; for one kind alone, use "
                f"`ArrayDataset`. Received: a mask with {len(self._labeled)} of "
                f"{len(mask)} rows labeled"
            )
        if labeled_rows is None:
            labeled_rows = min(max(self.batch_size // 4, 1), len(self._labeled))
        is_whole = isinstance(labeled_rows, (int, np.integer))
        most = min(self.batch_size - 1, len(self._labeled))
        if not is_whole or not 1 <= labeled_rows <= most:
            raise ValueError(
                f"`labeled_rows` must be a whole number from 1 to {most}: a batch has "
                f"{self.batch_size} rows, of which one has no label, and "
                f"{len(self._labeled)} rows have labels. Received: {labeled_rows!r}"
            )
        self.labeled_rows = int(labeled_rows)
        if not len(self):
            raise ValueError(
                f"No batch is left of {len(self._others)} rows without labels. "
                f"Received: batch_size={self.batch_size}, "
                f"labeled_rows={self.labeled_rows}, drop_remainder=True"
            )

    def __len__(self) -> int:
        batches, rest = divmod(len(self._others), self.batch_size - self.labeled_rows)
        return batches + (rest > 0 and not self.drop_remainder)

    def _draw(self, rng: np.random.Generator) -> NDArray[Any]:
        def shuffled(rows: NDArray[Any]) -> NDArray[Any]:
            return rng.permutation(rows) if self.shuffle else rows

        passes = -(-len(self) * self.labeled_rows // len(self._labeled))
        labeled = np.concatenate([shuffled(self._labeled) for _ in range(passes)])
        others = shuffled(self._others)
        each, rest = self.labeled_rows, self.batch_size - self.labeled_rows
        batches = (
            (labeled[each * batch :][:each], others[rest * batch :][:rest])
            for batch in range(len(self))
        )
        return np.concatenate([rows for batch in batches for rows in batch])
