"""The dtype in which cached features are stored, and its rounding error."""

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_dskd.features.step_masks import mask_key
from keras_dskd.internal.types import Nested

_PART = 2**20


class StorageDtype:
    """Casts features to the stored dtype, and measures the rounding error.

    Args:
        dtype: `"float16"`, `"float32"`, or `None` to keep the dtype of the features.

    Attributes:
        rounding: Dict of feature name -> `[squared error, squared feature]`, sums over
            the finite values of all features cast so far.
    """

    def __init__(self, dtype: str | None) -> None:
        if dtype not in (None, "float16", "float32"):
            raise ValueError(
                '`dtype` must be None (as the teacher computes), "float16" or '
                f'"float32". Received: dtype={dtype!r}'
            )
        self.dtype = dtype
        self.rounding: dict[str, list[float]] = {}

    def cast(
        self, features: dict[str, Nested], names: Iterable[str]
    ) -> dict[str, Nested]:
        """Casts the features of these names. Their step masks stay as they are.

        Raises:
            ValueError: If finite values exceed the range of the dtype.
        """
        self.rounding = dict(self.rounding)
        cast = {
            name: keras.tree.map_structure(
                lambda array, name=name: self._cast(array, name), features[name]
            )
            for name in names
        }
        masks = {
            key: keras.tree.map_structure(np.asarray, features[key])
            for key in map(mask_key, cast)
            if key in features
        }
        return {**cast, **masks}

    def relative_error(self, name: str) -> float:
        """Root mean square of a feature's error, relative to that of the feature."""
        error, squares = self.rounding[name]
        return (error / squares) ** 0.5 if squares else 0.0

    def _cast(self, array: Any, name: str) -> NDArray[Any]:
        array = np.asarray(array)
        if array.dtype.kind == "V" or array.dtype.name == "bfloat16":
            array = array.astype("float32")  # `.npy` files have no bfloat16.
        if self.dtype is None or array.dtype.kind != "f" or array.dtype == self.dtype:
            return array
        stored = np.empty(array.shape, self.dtype)
        given, kept = array.reshape(-1), stored.reshape(-1)
        # In parts: the float64 copies for the sums take twice the memory.
        for start in range(0, given.size, _PART):
            part = slice(start, start + _PART)
            self._cast_part(given[part], kept[part], name)
        return stored

    def _cast_part(self, given: NDArray[Any], kept: NDArray[Any], name: str) -> None:
        with np.errstate(over="ignore"):
            kept[:] = given
        is_finite = np.isfinite(given)
        finite = given[is_finite].astype("float64")
        if not np.isfinite(kept[is_finite]).all():
            raise ValueError(
                f'The output "{name}" of the teacher reaches '
                f"{np.abs(finite).max():.4g}, and {kept.dtype} ends at "
                f'{np.finfo(kept.dtype).max:.0f}. Use dtype="float32".'
            )
        error, squares = self.rounding.get(name, [0.0, 0.0])
        self.rounding[name] = [
            error + float(np.square(finite - kept[is_finite]).sum()),
            squares + float(np.square(finite).sum()),
        ]
