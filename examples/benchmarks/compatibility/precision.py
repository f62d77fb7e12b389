"""Compare the precision of losses with half precision and with offset features.

```bash
python examples/benchmarks/compatibility/precision.py
```

It computes each loss from the same rounded features on torch in two ways: as another
library does, in the dtype of the features (`forms_elsewhere.py`), and as keras_dskd
does. It prints the relative errors of both, against the formula in float64.
"""

import argparse
import os

import numpy as np

#: Heading -> (dtype, scale, offset) of the features.
FEATURES = {
    "float16": ("float16", 1.0, 0.0),
    "float16, values of 100": ("float16", 100.0, 0.0),
    "float16, mean 100": ("float16", 1.0, 100.0),
    "float32, mean 1,000": ("float32", 1.0, 1e3),
    "float32, mean 10,000": ("float32", 1.0, 1e4),
}
ROWS, MAP = (64, 64), (16, 8, 8, 32)


def cases():
    """Name elsewhere -> (our loss, shape of the features, factor between both)."""
    from keras_dskd import losses

    n, c = ROWS
    return {
        "similarity": (losses.SimilarityPreserving(), ROWS, 1),
        "relational_distance": (
            losses.RelationalDistillation(distance_weight=1, angle_weight=0),
            ROWS,
            (n - 1) / n,
        ),
        "relational_angle": (
            losses.RelationalDistillation(distance_weight=0, angle_weight=1),
            ROWS,
            (n - 1) * (n - 2) / n**2,
        ),
        "attention": (losses.AttentionTransfer(), MAP, 1 / (MAP[1] * MAP[2])),
        "barlow_twins": (
            losses.ChannelIndependence(off_diagonal_weight=0.0051),
            ROWS,
            c,
        ),
        "vicreg_covariance": (
            losses.ChannelIndependence(target="self"),
            ROWS,
            (n / (n - 1)) ** 2 * (c - 1),
        ),
        "channel_wise": (losses.ChannelWiseDistillation(), MAP, 1),
        "soft_targets": (losses.SoftTargets(), ROWS, 1),
    }


def features(shape, dtype, scale, offset):
    """Teacher's and student's features, rounded to a dtype, as NumPy arrays."""
    rng = np.random.default_rng(0)
    teacher = rng.normal(size=shape)
    student = 0.6 * teacher + 0.8 * rng.normal(size=shape)
    return [(scale * x + offset).astype(dtype) for x in (teacher, student)]


def errors(name, dtype, scale, offset):
    """Relative errors of one loss.

    Args:
        name: A key of `cases()`.
        dtype: Dtype of the features.
        scale: Standard deviation of the features.
        offset: Mean of the features.

    Returns:
        The error elsewhere and our error. NaN or infinity if the loss is not finite.
    """
    import forms_elsewhere
    import torch

    loss, shape, factor = cases()[name]
    arrays = features(shape, dtype, scale, offset)
    form = getattr(forms_elsewhere, name)
    given = arrays[1:] if name == "vicreg_covariance" else arrays
    exact = float(form(*(array.astype("float64") for array in given)))
    plain = float(form(*map(torch.from_numpy, given)))
    ours = factor * float(loss.compute_loss(*map(torch.from_numpy, arrays)))
    return [abs(value / exact - 1) for value in (plain, ours)]


def table():
    """The errors as lines of a Markdown table."""
    heads = ["loss elsewhere", *FEATURES]
    lines = [heads, ["---"] * len(heads)]
    for name in cases():
        found = [errors(name, *given) for given in FEATURES.values()]
        lines.append(
            [f"`{name}`", *(" / ".join(map(_written, each)) for each in found)]
        )
    return ["| " + " | ".join(line) + " |" for line in lines]


def _written(error):
    return f"{error:.0e}" if np.isfinite(error) else "not finite"


def main(arguments=None):
    """Prints the table."""
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args(
        arguments
    )
    os.environ["KERAS_BACKEND"] = "torch"
    print("Relative error: elsewhere / keras_dskd\n")
    print("\n".join(table()))


if __name__ == "__main__":
    main()
