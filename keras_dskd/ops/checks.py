"""What the formulas take, and what they answer to anything else."""

import math
import numbers
from typing import TypeGuard

import keras
import numpy as np
from keras import ops

from keras_dskd.internal.types import Nested, Replicas, Tensor

ROWS = ("pooled", "flattened", "positions")


def check_rows_kind(rows: object) -> None:
    """Raises `ValueError` unless `rows` names a way to make rows."""
    if rows not in ROWS:
        raise ValueError(f"`rows` must be one of {ROWS}. Received: rows={rows!r}")


def check_temperature(temperature: object) -> None:
    """Raises `ValueError` unless `temperature` is positive and finite."""
    if not is_number(temperature) or not 0 < temperature < math.inf:
        raise ValueError(
            "`temperature` must be > 0 and finite. Received: "
            f"temperature={temperature!r}"
        )
    if not 1e-6 <= temperature <= 1e6:
        raise ValueError(
            "`temperature` must be between 1e-6 and 1e6, for float32 to hold what is "
            f"made of it. Received: temperature={temperature!r}"
        )


def check_epsilon(epsilon: object) -> None:
    """Raises `ValueError` unless `epsilon` is a positive, finite number."""
    if not is_number(epsilon) or not 0 < epsilon < math.inf:
        raise ValueError(f"`epsilon` must be > 0. Received: epsilon={epsilon!r}")


def check_weight(name: str, weight: object) -> None:
    """Raises `ValueError` unless `weight` is a number that float32 holds, and >= 0."""
    if not is_number(weight) or not 0 <= weight <= 3e38:
        raise ValueError(f"`{name}` must be >= 0. Received: {name}={weight}")


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a real number, and no bool."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def as_floats(values: Nested, name: str = "rows") -> Tensor:
    """A tensor of float32.

    Raises:
        ValueError: If the values are no array of real numbers.
    """
    if isinstance(values, (list, tuple)) and any(
        isinstance(value, np.ndarray) for value in values
    ):
        values = np.stack(values)  # Which torch does slowly, and says so.
    try:
        tensor = ops.convert_to_tensor(values)
        dtype = keras.backend.standardize_dtype(tensor.dtype)
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"`{name}` must be an array of real numbers. Received: "
            f"{_told(values)}: {error}"
        ) from error
    if "complex" in dtype or dtype == "string":
        raise ValueError(
            f"`{name}` must be an array of real numbers. Received: dtype={dtype}"
        )
    return ops.cast(tensor, "float32")


def _told(values: object) -> str:
    dtype = getattr(values, "dtype", None)
    return type(values).__name__ + (f" of dtype {dtype}" if dtype is not None else "")


def check_rows(
    rows: Tensor, name: str = "rows", replicas: Replicas | None = None
) -> None:
    """Raises `ValueError` unless `rows` has rank 2 and at least two rows.

    A batch size that is unknown until run time (`None`, in a TensorFlow graph, or where
    replicas hold other rows) passes; the formulas are defined for a single row and give
    no gradient there.
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
    """Raises `ValueError` unless `rows` has rank 2."""
    if len(rows.shape) != 2:
        raise ValueError(
            f"Expected `{name}` of shape (n, c). Received: {name}.shape="
            f"{tuple(rows.shape)}. Turn a feature map into rows with "
            "`keras_dskd.ops.rows`."
        )


def check_not_empty(rows: Tensor, replicas: Replicas | None = None) -> None:
    """Raises `ValueError` unless there are rows `(n, c)`, one on some replica."""
    check_rank(rows)
    if 0 in tuple(rows.shape[0 if replicas is None else 1 :]):
        raise ValueError(
            "Expected at least one row and one channel. Received: "
            f"rows.shape={tuple(rows.shape)}"
        )


def check_paired_rows(
    teacher_rows: Tensor, student_rows: Tensor, replicas: Replicas | None = None
) -> None:
    """Raises `ValueError` unless both are rows of the same samples."""
    check_rows(teacher_rows, "teacher_rows", replicas)
    check_rows(student_rows, "student_rows", replicas)
    n_teacher, n_student = teacher_rows.shape[0], student_rows.shape[0]
    if None not in (n_teacher, n_student) and n_teacher != n_student:
        raise ValueError(
            "Teacher and student rows must come from the same samples. Received: "
            f"teacher_rows.shape={tuple(teacher_rows.shape)}, "
            f"student_rows.shape={tuple(student_rows.shape)}"
        )


def check_same_width(teacher_rows: Tensor, student_rows: Tensor) -> None:
    """Raises `ValueError` unless both have the same number of channels."""
    if teacher_rows.shape[-1] != student_rows.shape[-1]:
        raise ValueError(
            "Teacher and student features must have the same number of channels. "
            f"Received: {teacher_rows.shape[-1]} teacher channels and "
            f"{student_rows.shape[-1]} student channels. Give the student's feature "
            "a projector: Distiller(..., projectors={student_layer_name: "
            f"keras.layers.Dense({teacher_rows.shape[-1]})}})."
        )


def check_layer_name(name: object) -> None:
    """Raises `ValueError` unless it is the name of a layer or `None`."""
    if name is not None and not isinstance(name, str):
        raise ValueError(
            "A layer is given by its name or path, or None for the final output. "
            f"Received: {name!r} of type {type(name).__name__}"
        )


def check_number(name: str, weight: object, most: float = math.inf) -> None:
    """Raises `ValueError` unless `weight` is a number in [0, most]."""
    value = -1.0
    try:
        if isinstance(weight, numbers.Real) and not isinstance(weight, bool):
            value = float(weight)
    except OverflowError:
        value = math.inf
    # What float32 cannot hold would be infinite in the step.
    if not 0 <= value <= min(most, 3e38):
        limit = f"between 0 and {most}" if math.isfinite(most) else ">= 0"
        raise ValueError(
            f"`{name}` must be a number {limit}. Received: {name}={weight!r}"
        )
