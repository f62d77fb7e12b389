"""Pairs with labels and pairs without, as one input of `fit`."""

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_dskd.data.arrays import dense, row_count, sliceable
from keras_dskd.data.pairs import KEYS, is_pair
from keras_dskd.internal.types import Nested


def with_unlabeled(
    x: dict[str, Nested], y: Nested, x_unlabeled: dict[str, Nested]
) -> tuple[dict[str, Nested], Nested]:
    """Joins pairs with labels and pairs without labels for `fit`.

    The teacher then teaches the student on all pairs, and the labels count where there
    are any: `x["label_mask"]` says where. See `keras_dskd.Distiller`.

    Args:
        x: Pairs with labels, `{"teacher": ..., "student": ...}`: any structure of
            arrays of `n` rows. `"teacher_features"` may replace `"teacher"`, and
            `"teacher_mask"` may be added. A `"label_mask"` is extended.
        y: Their labels: any structure of arrays of `n` rows.
        x_unlabeled: Pairs without labels: arrays of `m` rows, with the keys and shapes
            of `x`. Only a `"teacher_mask"` may be missing on one side.

    Returns:
        `(x, y)` with `n + m` rows, those with labels first, as NumPy arrays. The labels
        of the other rows are zeros, and `x["label_mask"]` is false for them.

    Raises:
        ValueError: If an input is no pair, the keys or shapes differ, the arrays of one
            input have different numbers of rows, or labels are missing.

    Example:
    ```python
    x, y = keras_dskd.with_unlabeled(
        {"teacher": optical[:16], "student": radar[:16]},
        labels[:16],
        {"teacher": optical[16:], "student": radar[16:]},
    )
    distiller.fit(x, y, epochs=20)
    ```
    """
    for name, given in (("x", x), ("x_unlabeled", x_unlabeled)):
        if not is_pair(given):
            raise ValueError(
                f'`{name}` must be a dict {{"teacher": ..., "student": ...}}. '
                f"Received: {type(given).__name__}"
            )
        unknown = [key for key in given if key not in KEYS]
        if unknown:
            raise ValueError(f"`{name}` has keys {list(KEYS)}. Received: {unknown}")
    if x_unlabeled.get("label_mask") is not None:
        raise ValueError(
            'x_unlabeled["label_mask"] marks rows with labels. Pass these rows as `x`.'
        )
    if not keras.tree.flatten(y) or any(each is None for each in keras.tree.flatten(y)):
        raise ValueError("`with_unlabeled` needs labels of `x`. Received: y=None")
    with_labels, without = _arrays(x), _arrays(x_unlabeled)
    labels = keras.tree.map_structure(sliceable, y)
    count = _count_rows("x", {**with_labels, "y": labels})
    others = _count_rows("x_unlabeled", without)
    if "teacher_mask" in {**with_labels, **without}:
        with_labels.setdefault("teacher_mask", np.ones(count, bool))
        without.setdefault("teacher_mask", np.ones(others, bool))
    with_labels.setdefault("label_mask", np.ones(count, bool))
    without["label_mask"] = np.zeros(others, bool)
    if with_labels.keys() != without.keys():
        raise ValueError(
            "`x` and `x_unlabeled` must have the same keys. Received: "
            f"{sorted(x)} and {sorted(x_unlabeled)}"
        )
    joined = {key: _joined(key, with_labels[key], without[key]) for key in with_labels}
    return joined, keras.tree.map_structure(lambda rows: _filled(rows, others), labels)


def _arrays(x: dict[str, Nested]) -> dict[str, Nested]:
    """The parts that are given, as arrays; masks as `(n,)`."""
    given = {key: part for key, part in x.items() if part is not None}
    given = keras.tree.map_structure(sliceable, given)
    for key in ("teacher_mask", "label_mask"):
        if key in given and row_count(given[key]) is not None:
            given[key] = np.reshape(dense(given[key]), -1).astype(bool)
    return given


def _count_rows(name: str, parts: dict[str, Nested]) -> int:
    counts = {
        key: sorted({row_count(array) or 0 for array in keras.tree.flatten(part)})
        for key, part in parts.items()
    }
    found = {count for each in counts.values() for count in each}
    if len(found) != 1 or found == {0}:
        raise ValueError(
            f"The arrays of `{name}` must have the same number of rows, at least one. "
            f"Received: {counts}"
        )
    return found.pop()


def _joined(key: str, first: Nested, second: Nested) -> Nested:
    try:
        keras.tree.assert_same_structure(first, second)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f'x["{key}"] and x_unlabeled["{key}"] must have the same structure: {error}'
        ) from error

    def join(one: Any, other: Any) -> NDArray[Any]:
        if one.shape[1:] != other.shape[1:]:
            raise ValueError(
                f'x["{key}"] and x_unlabeled["{key}"] must have rows of one shape. '
                f"Received: {tuple(one.shape)} and {tuple(other.shape)}"
            )
        return np.concatenate([dense(one[:]), dense(other[:])])

    return keras.tree.map_structure(join, first, second)


def _filled(labels: Any, count: int) -> NDArray[Any]:
    """Labels, and then zeros for further rows."""
    labels = dense(labels[:])
    return np.concatenate([labels, np.zeros((count, *labels.shape[1:]), labels.dtype)])
