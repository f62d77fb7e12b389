"""Argument and shape checks for the formulas."""

import math
import numbers
from collections.abc import Sequence
from typing import TypeGuard

import keras
import numpy as np
from keras import ops

from keras_dskd.internal.types import Nested, Replicas, Tensor

ROWS = ("pooled", "flattened", "positions")

_FLOAT32_MAX = 3e38


def check_rows_kind(rows: object) -> None:
    """Raise `ValueError` unless `rows` is one of `ROWS`."""
    if rows not in ROWS:
        raise ValueError(f"`rows` must be one of {ROWS}. Received: rows={rows!r}")


def check_temperature(temperature: object) -> None:
    """Raise `ValueError` unless it is a tensor, or a number between 1e-6 and 1e6."""
    if ops.is_tensor(temperature):
        return  # Its value may not be known yet.
    # Outside of this range, intermediate results leave the range of float32.
    if not 1e-6 <= _as_float(temperature) <= 1e6:
        raise ValueError(
            "`temperature` must be a number between 1e-6 and 1e6. Received: "
            f"temperature={temperature!r}"
        )


def check_epsilon(epsilon: object) -> None:
    """Raise `ValueError` unless `epsilon` is a positive, finite number."""
    if not 0 < _as_float(epsilon) < math.inf:
        raise ValueError(f"`epsilon` must be > 0. Received: epsilon={epsilon!r}")


def check_number(name: str, value: object, most: float = math.inf) -> None:
    """Raise `ValueError` unless `value` is a number in [0, most] that float32 holds."""
    if not 0 <= _as_float(value) <= min(most, _FLOAT32_MAX):
        limit = f"between 0 and {most}" if math.isfinite(most) else ">= 0"
        raise ValueError(
            f"`{name}` must be a number {limit}. Received: {name}={value!r}"
        )


def is_number(value: object) -> TypeGuard[float]:
    """Whether `value` is a real number. A bool is not."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _as_float(value: object) -> float:
    """The value as a Python float; NaN unless it is a real number."""
    try:
        return float(value) if is_number(value) else math.nan
    except OverflowError:
        return math.inf


def is_same_shape(shape: Sequence[int | None], other: Sequence[int | None]) -> bool:
    """Whether two shapes agree. An unknown axis (`None`) agrees with any length."""
    return len(shape) == len(other) and all(
        None in lengths or lengths[0] == lengths[1]
        for lengths in zip(shape, other, strict=True)
    )


def as_floats(values: Nested, name: str = "rows") -> Tensor:
    """Convert to a float32 tensor.

    Raises:
        ValueError: If `values` is not an array of real numbers.
    """
    if isinstance(values, (list, tuple)) and any(
        isinstance(value, np.ndarray) for value in values
    ):
        values = np.stack(values)  # torch converts lists of arrays slowly, and warns.
    try:
        tensor = ops.convert_to_tensor(values)
        dtype = keras.backend.standardize_dtype(tensor.dtype)
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"`{name}` must be an array of real numbers. Received: "
            f"{_type_and_dtype(values)}: {error}"
        ) from error
    if "complex" in dtype or dtype == "string":
        raise ValueError(
            f"`{name}` must be an array of real numbers. Received: dtype={dtype}"
        )
    return ops.cast(tensor, "float32")


def _type_and_dtype(values: object) -> str:
    dtype = getattr(values, "dtype", None)
    return type(values).__name__ + (f" of dtype {dtype}" if dtype is not None else "")


def check_rows(
    rows: Tensor, name: str = "rows", replicas: Replicas | None = None
) -> None:
    """Raise `ValueError` unless `rows` has rank 2 and at least two rows.

    The number of rows is checked only where it is known: not in a TensorFlow graph
    with a batch size of `None`, and not where other replicas hold further rows. With a
    single row the formulas are defined and their gradient is zero.
    """
    check_rank(rows, name)
    if rows.shape[1] == 0:
        raise ValueError(
            f"Expected at least one channel. Received: {name}.shape={tuple(rows.shape)}"
        )
    if replicas is None and rows.shape[0] is not None and rows.shape[0] < 2:
        raise ValueError(
            "Batch statistics need at least 2 rows. Received: "
            f"{name}.shape={tuple(rows.shape)}. Use a larger batch, or drop the "
            "last incomplete one."
        )


def check_rank(rows: Tensor, name: str = "rows") -> None:
    """Raise `ValueError` unless `rows` has rank 2."""
    if len(rows.shape) != 2:
        raise ValueError(
            f"Expected `{name}` of shape (n, c). Received: {name}.shape="
            f"{tuple(rows.shape)}. Turn a feature map into rows with "
            "`keras_dskd.ops.rows`."
        )


def check_not_empty(rows: Tensor, replicas: Replicas | None = None) -> None:
    """Raise `ValueError` unless `rows` is `(n, c)` with at least one row and channel.

    With `replicas`, one replica may have no rows.
    """
    check_rank(rows)
    if 0 in tuple(rows.shape[0 if replicas is None else 1 :]):
        raise ValueError(
            "Expected at least one row and one channel. Received: "
            f"rows.shape={tuple(rows.shape)}"
        )


def as_paired_rows(
    teacher_rows: Nested,
    student_rows: Nested,
    replicas: Replicas | None = None,
    *,
    same_width: bool = False,
) -> tuple[Tensor, Tensor]:
    """Convert both to float32, and check that they are rows of the same samples.

    Args:
        teacher_rows: Array `(n, c_teacher)`.
        student_rows: Array `(n, c_student)`.
        replicas: Collective operations, if other replicas hold further rows.
        same_width: Whether the numbers of channels must be equal.

    Returns:
        Tensors `(n, c_teacher)` and `(n, c_student)`.

    Raises:
        ValueError: If one is not `(n, c)` or has fewer than two rows, or if the numbers
            of rows, or of channels with `same_width`, differ.
    """
    teacher_rows = as_floats(teacher_rows, "teacher_rows")
    student_rows = as_floats(student_rows, "student_rows")
    check_rows(teacher_rows, "teacher_rows", replicas)
    check_rows(student_rows, "student_rows", replicas)
    if not is_same_shape(teacher_rows.shape[:1], student_rows.shape[:1]):
        raise ValueError(
            "Teacher and student rows must come from the same samples. Received: "
            f"teacher_rows.shape={tuple(teacher_rows.shape)}, "
            f"student_rows.shape={tuple(student_rows.shape)}"
        )
    if same_width and teacher_rows.shape[1] != student_rows.shape[1]:
        raise ValueError(
            "Teacher and student features must have the same number of channels. "
            f"Received: {teacher_rows.shape[1]} teacher channels and "
            f"{student_rows.shape[1]} student channels. Give the student's feature "
            "a projector: Distiller(..., projectors={student_layer_name: "
            f"keras.layers.Dense({teacher_rows.shape[1]})}})."
        )
    return teacher_rows, student_rows


def check_layer_name(name: object) -> None:
    """Raise `ValueError` unless `name` is a string or `None`."""
    if name is not None and not isinstance(name, str):
        raise ValueError(
            "Expected a layer's name or path, or None for the model's output. "
            f"Received: {name!r} of type {type(name).__name__}"
        )


def check_label_name(name: object) -> None:
    """Raise `ValueError` unless `name` is a string or `None`."""
    if name is not None and not isinstance(name, str):
        raise ValueError(
            "`label_name` must be the name of an output, or None. Received: "
            f"{name!r} of type {type(name).__name__}"
        )
