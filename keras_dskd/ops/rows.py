"""Features become rows: float32 matrices `(n, c)`, one channel a column."""

import math
import numbers

import keras
import numpy as np
from keras import ops

ROWS = ("pooled", "flattened", "positions")


def check_rows_kind(rows):
    """Raises `ValueError` unless `rows` names a way to make rows."""
    if rows not in ROWS:
        raise ValueError(f"`rows` must be one of {ROWS}. Received: rows={rows!r}")


def check_temperature(temperature):
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


def check_epsilon(epsilon):
    """Raises `ValueError` unless `epsilon` is a positive, finite number."""
    if not is_number(epsilon) or not 0 < epsilon < math.inf:
        raise ValueError(f"`epsilon` must be > 0. Received: epsilon={epsilon!r}")


def is_number(value):
    """Whether it is a real number, and no bool."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def as_floats(values, name="rows"):
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


def _told(values):
    dtype = getattr(values, "dtype", None)
    return type(values).__name__ + (f" of dtype {dtype}" if dtype is not None else "")


def check_rows(rows, name="rows"):
    """Raises `ValueError` unless `rows` has rank 2 and at least two rows.

    A batch size that is unknown until run time (`None`, in a TensorFlow graph)
    passes; the formulas are defined for a single row and give no gradient there.
    """
    _check_rank(rows, name)
    if rows.shape[1] == 0:
        raise ValueError(
            f"Expected at least one channel. Received: {name}.shape={tuple(rows.shape)}"
        )
    if rows.shape[0] is not None and rows.shape[0] < 2:
        raise ValueError(
            "Batch statistics need at least 2 rows. Received: "
            f"{name}.shape={tuple(rows.shape)}. Use a larger batch, or drop the "
            "last incomplete one."
        )


def _check_rank(rows, name="rows"):
    if len(rows.shape) != 2:
        raise ValueError(
            f"Expected `{name}` of shape (n, c). Received: {name}.shape="
            f"{tuple(rows.shape)}. Turn a feature map into rows with "
            "`keras_dskd.ops.rows`."
        )


def check_paired_rows(teacher_rows, student_rows):
    """Raises `ValueError` unless both are rows of the same samples."""
    check_rows(teacher_rows, "teacher_rows")
    check_rows(student_rows, "student_rows")
    n_teacher, n_student = teacher_rows.shape[0], student_rows.shape[0]
    if None not in (n_teacher, n_student) and n_teacher != n_student:
        raise ValueError(
            "Teacher and student rows must come from the same samples. Received: "
            f"teacher_rows.shape={tuple(teacher_rows.shape)}, "
            f"student_rows.shape={tuple(student_rows.shape)}"
        )


def check_same_width(teacher_rows, student_rows):
    """Raises `ValueError` unless both have the same number of channels."""
    if teacher_rows.shape[-1] != student_rows.shape[-1]:
        raise ValueError(
            "Teacher and student features must have the same number of channels. "
            f"Received: {teacher_rows.shape[-1]} teacher channels and "
            f"{student_rows.shape[-1]} student channels. Give the student's feature "
            "a projector: Distiller(..., projectors={student_layer_name: "
            f"keras.layers.Dense({teacher_rows.shape[-1]})}})."
        )


def rows(feature, rows="pooled", data_format=None):
    """Turns a feature into float32 rows.

    Args:
        feature: Tensor `(n, c)`, or a feature map `(n, ..., c)` with any number of
            positions, of any real dtype.
        rows: What becomes a row. `"pooled"`: the mean over positions, one row a
            sample, `(n, c)`. `"flattened"`: all positions side by side, one row a
            sample, `(n, positions * c)`. `"positions"`: each position of each
            sample, `(n * positions, c)`.
        data_format: `"channels_last"` or `"channels_first"`, for feature maps of
            rank 4 and 5. Defaults to `keras.config.image_data_format()`. Rank 3 is
            always `(n, length, c)`.

    Returns:
        Tensor of rank 2, float32.

    Raises:
        ValueError: If `rows` is unknown or the feature has no channel axis.
    """
    check_rows_kind(rows)
    if isinstance(feature, (list, tuple, dict)):
        raise ValueError(
            f"Expected one feature. Received a {type(feature).__name__} of "
            f"{len(feature)}: the layer or model has several outputs. Name a layer "
            "with one output."
        )
    if data_format is not None:
        channel_axis(4, data_format)
    feature = as_floats(feature, "feature")
    rank = len(feature.shape)
    if rank < 2:
        raise ValueError(
            "Expected a feature of shape (n, c) or (n, ..., c). Received: "
            f"feature.shape={tuple(feature.shape)}"
        )
    if 0 in tuple(feature.shape)[1:]:
        raise ValueError(
            "Expected a feature with at least one position and one channel. Received: "
            f"feature.shape={tuple(feature.shape)}"
        )
    if rank == 2:
        return feature
    feature = ops.moveaxis(feature, channel_axis(rank, data_format), -1)
    if rows == "pooled":
        return ops.mean(feature, axis=tuple(range(1, rank - 1)))  # (n, c)
    if rows == "flattened":
        size = 1
        for length in feature.shape[1:]:
            size = None if None in (size, length) else size * length
        if size is None:
            raise ValueError(
                'rows="flattened" needs a feature map of known size. Received: '
                f'feature.shape={tuple(feature.shape)}. Use rows="pooled".'
            )
        return ops.reshape(feature, (-1, size))  # (n, positions * c)
    return ops.reshape(feature, (-1, feature.shape[-1]))  # (n * positions, c)


def channel_axis(rank, data_format=None):
    """Which axis of a feature map of that rank holds the channels. See `rows`."""
    data_format = data_format or keras.config.image_data_format()
    if data_format not in ("channels_last", "channels_first"):
        raise ValueError(
            '`data_format` must be "channels_last" or "channels_first". Received: '
            f"data_format={data_format!r}"
        )
    return 1 if rank > 3 and data_format == "channels_first" else rank - 1


def standardize(rows, epsilon=1e-5, mask=None):
    """Standardises each channel over the rows.

    Formula:

    ```
    z = (x - mean(x)) / sqrt(var(x) + epsilon)
    ```

    with the biased variance (divided by n). A constant channel becomes 0 and has
    a finite gradient.

    Args:
        rows: Tensor `(n, c)`.
        epsilon: Added to the variance, in squared units of the feature.
        mask: Bool tensor `(n,)`, true for the rows to standardise over. The others
            become 0, whatever they hold.

    Returns:
        Tensor `(n, c)`, float32.
    """
    check_epsilon(epsilon)
    rows = as_floats(rows)
    _check_rank(rows)
    first = rows[:1]
    if mask is not None:
        rows = keep_rows(rows, mask)
        first = ops.take(rows, ops.argmax(ops.cast(mask, "int32")), axis=0)[None]
    # The mean of equal numbers can miss them by a rounding, which would be taken for a
    # spread. Less the first row, a constant channel is exactly 0.
    rows = rows - ops.stop_gradient(first)
    centred = keep_rows(rows - _mean_of_rows(rows, mask), mask)
    # Squares of features beyond 1e19 overflow float32. Dividing by a constant
    # leaves the formula as it is, provided that epsilon is divided as well.
    scale = ops.stop_gradient(
        ops.maximum(ops.max(ops.abs(centred), axis=0, keepdims=True), 1.0)
    )  # (1, c)
    centred = centred / scale
    variance = _mean_of_rows(ops.square(centred), mask)  # (1, c)
    return centred * ops.rsqrt(variance + epsilon / scale / scale)


def keep_rows(values, mask):
    """Sets to 0 what belongs to rows that are not there, even where it is NaN.

    Args:
        values: Tensor `(n, ...)`.
        mask: Bool tensor `(n,)`, or `None`: all are there.

    Returns:
        Tensor of the shape of `values`.
    """
    if mask is None:
        return values
    values, mask = ops.convert_to_tensor(values), ops.convert_to_tensor(mask)
    if not values.shape or (
        None not in (values.shape[0], mask.shape[0])
        and values.shape[0] != mask.shape[0]
    ):
        raise ValueError(
            "Where samples are left out, a feature has one row a sample. Received: "
            f"feature.shape={tuple(values.shape)} and a mask of {mask.shape[0]} samples"
        )
    mask = ops.reshape(mask, (-1,) + (1,) * (len(values.shape) - 1))
    return ops.where(ops.cast(mask, "bool"), values, ops.zeros_like(values))


def count_rows(rows, mask=None):
    """Number of rows, or of those that the mask keeps: a float32 scalar."""
    if mask is None:
        return ops.cast(ops.shape(rows)[0], "float32")
    return ops.sum(ops.cast(mask, "float32"))


def _mean_of_rows(rows, mask):
    if mask is None:
        return ops.mean(rows, axis=0, keepdims=True)
    total = ops.sum(keep_rows(rows, mask), axis=0, keepdims=True)
    return total / ops.maximum(count_rows(rows, mask), 1.0)


def weighted_mean(values, sample_weight=None):
    """Mean of values, each times its sample's weight.

    Formula:

    ```
    Σ_i w_i v_i / n
    ```

    as Keras's losses weigh samples.

    Args:
        values: Tensor `(n, ...)`.
        sample_weight: Tensor `(n,)`, or `(n, ...)` with a weight for each of some
            further axes; their mean counts where `values` lack these axes. `None`
            for 1 each.

    Returns:
        Scalar, float32.
    """
    values = as_floats(values, "values")
    if sample_weight is None:
        return ops.mean(values)
    weight = sample_weight = as_floats(sample_weight, "sample_weight")
    rank = len(values.shape)
    if len(weight.shape) > rank:
        weight = ops.mean(weight, axis=tuple(range(rank, len(weight.shape))))
    shapes = tuple(values.shape), tuple(weight.shape)
    if any(
        None not in (v, w) and w != v and (axis == 0 or w != 1)
        for axis, (v, w) in enumerate(zip(*shapes, strict=False))
    ):
        raise ValueError(
            "`sample_weight` holds one weight a sample, or one for each of further "
            f"axes. Received: sample_weight.shape={tuple(sample_weight.shape)} for "
            f"values of shape {shapes[0]}"
        )
    for _ in range(rank - len(weight.shape)):
        weight = ops.expand_dims(weight, -1)
    return ops.mean(values * weight)


def normalize(rows):
    """Scales each row to unit L2 length; a row of zeros stays zero.

    Args:
        rows: Tensor `(n, c)`.

    Returns:
        Tensor `(n, c)`, float32. The gradient of a zero row is zero.
    """
    rows = as_floats(rows)
    _check_rank(rows)
    largest = ops.stop_gradient(ops.max(ops.abs(rows), axis=1, keepdims=True))
    is_zero = ops.equal(largest, 0.0)  # (n, 1)
    # The largest entry becomes 1, so that squares neither overflow nor vanish.
    rows = rows / ops.where(is_zero, 1.0, largest)
    squares = ops.sum(ops.square(rows), axis=1, keepdims=True)
    lengths = ops.sqrt(ops.where(is_zero, 1.0, squares))
    return ops.where(is_zero, 0.0, rows / lengths)
