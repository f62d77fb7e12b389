"""Mixup of pairs: all modalities and the labels in one share."""

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_dskd.data.arrays import dense, sliceable
from keras_dskd.data.dataset import CachedDataset
from keras_dskd.internal.types import Nested
from keras_dskd.ops.checks import is_number


class MixedPairs(CachedDataset):
    """What `fit` takes as arrays, each pair mixed with another of its batch.

    Formula, for every array of `x` and for `y`, with a share and an order a batch:

    ```
    row_i <- m row_i + (1 - m) row_order(i),   m ~ Beta(alpha, alpha)
    ```

    No pair is seen twice, so that training may go on for long; the teacher, which sees
    the strong modality mixed in the same share, says what the student is to see in it.

    Mixing averages noise as well. A student on a noisy modality is then trained on less
    noise than it will meet, and its `BatchNormalization` keeps the statistics of
    mixtures: on speckled radar images this cost 13 points of accuracy, where blurred
    digits gained (`examples/benchmarks/RESULTS.md`). Try it on validation rows.

    Args:
        x: The input of `fit`, such as `{"teacher": ..., "student": ...}`: any structure
            of arrays of `n` rows. Whole numbers become float32, and are not scaled.
        y: Labels of `n` rows. Whole numbers `(n,)` or `(n, 1)` are class numbers and
            become one-hot `(n, classes)`, so that losses and metrics must be those of
            one-hot labels: `CategoricalCrossentropy`. Others are mixed as they are.
        batch_size: Rows of a batch. The last one may be smaller.
        alpha: Positive. 1 draws all shares alike; less, mostly shares close to 0 or 1.
        classes: Number of classes, of class numbers. `None`: the largest and one.
        shuffle: Whether each epoch has an order of its own.
        seed: Makes orders and shares those of every run with this seed. Defaults to one
            drawn from NumPy's global generator, which `keras.utils.set_random_seed`
            sets.
        **kwargs: As `CachedDataset` has them, as all else that is not said here.

    Raises:
        ValueError: If arrays have different numbers of rows, `alpha` is not positive, a
            class number is out of its range, or `x` holds cached features or a mask of
            samples, which cannot be mixed.

    Source:
        Mixup (Zhang et al. 2018, arXiv 1710.09412), one share a batch as in the
        authors' code; with a teacher that sees the same mixture (Beyer et al. 2022,
        arXiv 2106.05237).

    Example:
    ```python
    pairs = {"teacher": optical, "student": radar}
    data = keras_dskd.MixedPairs(pairs, labels, batch_size=64)
    distiller.compile("adamw", keras.losses.CategoricalCrossentropy(from_logits=True))
    distiller.fit(data, epochs=60, shuffle=False)
    ```
    """

    def __init__(
        self,
        x: Nested,
        y: Nested,
        batch_size: int = 32,
        alpha: float = 1.0,
        classes: int | None = None,
        shuffle: bool = True,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        if not is_number(alpha) or not 0 < alpha < float("inf"):
            raise ValueError(f"`alpha` must be a positive number. Received: {alpha!r}")
        for key in ("teacher_features", "teacher_mask"):
            if isinstance(x, dict) and key in x:
                raise ValueError(
                    f'x["{key}"] cannot be mixed: a mixed pair has features of its '
                    "own, and needs both of its teacher's rows. Give the teacher's "
                    'inputs as x["teacher"], of samples that have them.'
                )
        if y is None:
            raise ValueError("`MixedPairs` needs labels. Received: y=None")
        if "sample_weight" in kwargs:
            raise ValueError(
                "`MixedPairs` takes no `sample_weight`: a mixed pair is of two samples."
            )
        if classes is not None and not (is_number(classes) and classes >= 1):
            raise ValueError(
                f"`classes` must be a whole number from 1 on. Received: {classes!r}"
            )
        y = keras.tree.map_structure(lambda part: _mixable(part, classes), y)
        super().__init__(
            x, y, batch_size=batch_size, shuffle=shuffle, seed=seed, **kwargs
        )
        self.alpha = alpha

    def __getitem__(self, index: int) -> tuple[Nested, ...]:
        batch = super().__getitem__(index)
        rng = np.random.default_rng([self.seed, self.epoch, index])
        share = rng.beta(self.alpha, self.alpha)
        others = rng.permutation(len(keras.tree.flatten(batch)[0]))

        def mix(array: NDArray[Any]) -> NDArray[Any]:
            if not np.issubdtype(array.dtype, np.floating):
                array = array.astype("float32")
            mixed = share * array + (1 - share) * array[others]
            return mixed.astype(array.dtype, copy=False)

        return keras.tree.map_structure(mix, batch)


def _mixable(labels: Any, classes: float | None) -> NDArray[Any]:
    """Class numbers as one-hot; others as they are."""
    labels = dense(sliceable(labels))
    numbers = labels[:, 0] if labels.shape[1:] == (1,) else labels
    if not np.issubdtype(labels.dtype, np.integer) or numbers.ndim != 1:
        return labels
    count = int(numbers.max(initial=0)) + 1 if classes is None else int(classes)
    if numbers.min(initial=0) < 0 or numbers.max(initial=0) >= count:
        raise ValueError(
            f"Class numbers must be from 0 to {count - 1}. Received: numbers from "
            f"{numbers.min()} to {numbers.max()}"
        )
    return np.eye(count, dtype="float32")[numbers]
