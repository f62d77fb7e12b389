"""Difficult arrays, each drawn from a seed and a kind."""

import keras
import numpy as np

#: Kinds of finite numbers.
FINITE = (
    "normal",
    "integers",
    "zeros",
    "constant",
    "duplicates",
    "offset",
    "huge",
    "tiny",
    "denormal",
    "scales",
    "outlier",
)
BROKEN = ("nan", "inf", "all nan")
FLOATS = ("float32", "float64", "float16", "bfloat16")
REAL = (*FLOATS, "int8", "int32", "bool")
FORMS = ("numpy", "tensor", "list")


def numbers(shape, kind="normal", seed=0):
    """Float64 numbers that float32 represents exactly."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    if kind == "integers":
        x = rng.integers(-3, 4, shape)
    elif kind == "zeros":
        x = np.zeros(shape)
    elif kind == "constant":
        x = np.full(shape, rng.normal() * 10.0 ** rng.integers(-3, 4))
    elif kind == "duplicates" and x.ndim and x.size:
        x = np.broadcast_to(x[:1], shape)
    elif kind == "offset":
        x = x + 10.0 ** rng.integers(2, 7)
    elif kind == "huge":
        x = x * 1e29
    elif kind == "tiny":
        x = x * 1e-30
    elif kind == "denormal":
        x = x * 1e-40
    elif kind == "scales":
        x = x * 10.0 ** rng.integers(-30, 30, np.shape(x)[-1:])
    elif kind in ("outlier", "nan", "inf") and x.size:
        x = x.copy()
        x.flat[rng.integers(x.size)] = {"outlier": 1e20, "nan": np.nan}.get(
            kind, np.inf
        )
    elif kind == "all nan":
        x = np.full(shape, np.nan)
    with np.errstate(all="ignore"):
        return np.asarray(x, "float32").astype("float64")


def as_dtype(x, dtype):
    """The numbers in a dtype, and the same rounded numbers in float64."""
    with np.errstate(all="ignore"):
        if dtype == "bool":
            x = np.asarray(x) > 0
        elif dtype.startswith("int"):
            limits = np.iinfo(dtype)
            x = np.clip(
                np.nan_to_num(x), limits.min, limits.max - 1024 * (dtype != "int8")
            )
            x = np.trunc(np.minimum(x, limits.max)).astype(dtype)
        elif dtype in ("float16", "bfloat16"):
            most = 65504.0 if dtype == "float16" else 3e38
            x = np.where(np.isfinite(x), np.clip(x, -most, most), x)
            x = x.astype(dtype) if dtype == "float16" else _bfloat16(x)
        else:
            x = np.asarray(x).astype(dtype)
        return x, np.asarray(x, "float64")


def _bfloat16(x):
    """The numbers rounded to bfloat16, which NumPy lacks."""
    bits = np.asarray(x, "float32").view("uint32") & np.uint32(0xFFFF0000)
    return bits.view("float32")


def passed(x, dtype, form):
    """The array in the form that the library receives."""
    if form == "list":
        return x.tolist()
    if dtype == "bfloat16":
        return keras.ops.cast(keras.ops.convert_to_tensor(x), "bfloat16")
    return keras.ops.convert_to_tensor(x) if form == "tensor" else x
