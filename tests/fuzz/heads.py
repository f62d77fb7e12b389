"""Random models: heads of any task on features of any rank, dtype and mask."""

from typing import NamedTuple

import keras
import numpy as np
from keras import layers, ops

STEPS = 3
GRID = (2, 3)
TOKENS = 7
HIDDEN = 3

#: What a body returns -> the bodies that do.
BODIES = {
    "rows": ("rows", "rows", "counts", "ids", "pooled ids"),
    "steps": ("steps", "steps", "masked steps", "masked ids"),
    "maps": ("maps", "maps", "bytes"),
}
POSITIONS = {"rows": (), "steps": (STEPS,), "maps": GRID}
MASKED = ("pooled ids", "masked steps", "masked ids")
#: Bodies whose output has the mask of the input's steps.
STEPWISE = ("masked steps", "masked ids")


class Head(NamedTuple):
    """How a head makes its output.

    Attributes:
        kind: `"linear"`, `"relu"`, `"softmax"` or `"sigmoid"`.
        units: Length of the last axis; 0 for an output without that axis.
        how: Whether the activation is an `"argument"`, a `"layer"` or an `"op"`.
        behind: What comes after the activation, such as `"reshape"`.
        is_pooled: Whether the head reads the mean over positions.
    """

    kind: str
    units: int
    how: str = "argument"
    behind: str | None = None
    is_pooled: bool = False

    def shape(self, positions):
        """The shape of one sample's output."""
        last = (self.units,) if self.units else ()
        return last if self.is_pooled else (*positions, *last)


class Body:
    """The layers between the input and the heads.

    It is applied to symbolic and to eager tensors.
    """

    def __init__(self, kind, width, seeds):
        self.kind, self.width = kind, width
        drawn = {"kernel_initializer": keras.initializers.RandomNormal(0, 1, seeds())}
        last = {"data_format": "channels_last"}
        is_token = kind.endswith("ids")
        self.layers = []
        if kind in ("counts", "bytes"):
            self.layers.append(layers.Rescaling(0.25 if kind == "counts" else 1 / 255))
        elif is_token:
            table = keras.initializers.RandomNormal(0, 1, seeds())
            masks = kind != "ids"
            self.layers.append(layers.Embedding(TOKENS, width, table, mask_zero=masks))
        elif kind == "masked steps":
            self.layers.append(layers.Masking())
        if kind in ("rows", "counts"):
            self.layers.append(layers.Dense(HIDDEN, "tanh", **drawn))
        elif kind == "ids":
            self.layers.append(layers.Flatten())
        elif kind == "pooled ids":
            self.layers.append(layers.GlobalAveragePooling1D(**last))
        elif kind == "steps":
            self.layers.append(
                layers.Conv1D(HIDDEN, 2, padding="same", **last, **drawn)
            )
        elif kind.startswith("masked"):
            self.layers.append(
                # The default initializer cannot make half-precision numbers.
                layers.SimpleRNN(
                    HIDDEN,
                    return_sequences=True,
                    recurrent_initializer=keras.initializers.RandomNormal(
                        0, 1, seeds()
                    ),
                    **drawn,
                )
            )
        else:
            self.layers.append(layers.Conv2D(HIDDEN, 2, padding="same", **drawn))

    @property
    def input_shape(self):
        if self.kind.endswith("ids"):
            return (STEPS,)
        if self.kind.endswith("steps"):
            return (STEPS, self.width)
        return (*GRID, self.width) if self.kind in BODIES["maps"] else (self.width,)

    @property
    def input_dtype(self):
        """The dtype of the input; `None` for floats."""
        if self.kind.endswith("ids") or self.kind == "counts":
            return "int32"
        return "uint8" if self.kind == "bytes" else None

    def data(self, n, rng, dtype):
        """An input of `n` samples, and the mask of its real steps or `None`."""
        shape = (n, *self.input_shape)
        if self.input_dtype is None:
            x = rng.normal(size=shape).astype(dtype)
        else:
            low, high = {"counts": (-5, 6), "bytes": (0, 256)}.get(
                self.kind, (1, TOKENS)
            )
            x = rng.integers(low, high, shape).astype(self.input_dtype)
        if self.kind not in MASKED:
            return x, None
        mask = np.arange(STEPS) < rng.integers(1, STEPS + 1, (n, 1))
        kept = mask.reshape(mask.shape + (1,) * (x.ndim - 2))
        return np.where(kept, x, 0).astype(x.dtype), mask

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class HeadLayers:
    """The layers of one head, `logits_NAME` the first and `out_NAME` the last.

    If the first is also the last, its name is `out_NAME`.
    """

    def __init__(self, head, name, positions, drops, seeds):
        self.head = head
        rank = 0 if head.is_pooled else len(positions)
        shape = tuple(head.shape(positions))
        self.pool = None
        if head.is_pooled:
            pools = [layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D]
            self.pool = pools[len(positions) - 1](data_format="channels_last")
        is_argument = head.how == "argument" or head.kind == "linear"

        def first(name):
            drawn = keras.initializers.RandomNormal(0, 1.5, seeds())
            kernel = {"kernel_initializer": drawn, "bias_initializer": drawn}
            activation = head.kind if is_argument else None
            units = max(head.units, 1)
            if rank == 2:
                return layers.Conv2D(
                    units, 1, activation=activation, name=name, **kernel
                )
            return layers.Dense(units, activation, name=name, **kernel)

        chain = [first]
        if not is_argument and head.how == "layer":
            chain.append(lambda name: layers.Activation(head.kind, name=name))
        elif not is_argument:
            chain.append(lambda name: getattr(ops, head.kind))
        members = len(chain)
        rate = 0.5 if drops else 0.0
        chain += [
            {
                "average": lambda name: layers.Average(name=name),
                "reshape": lambda name: layers.Reshape(shape, name=name),
                "identity": lambda name: layers.Identity(name=name),
                "dropout": lambda name: layers.Dropout(rate, name=name),
                "linear": lambda name: layers.Activation("linear", name=name),
            }[behind]
            for behind in (head.behind, None if head.units else "reshape")
            if behind
        ]
        names = [f"logits_{name}", *[None] * (len(chain) - 1)]
        names[-1] = f"out_{name}"
        made = [make(given) for make, given in zip(chain, names, strict=True)]
        self.members = [made[:members]]
        if head.behind == "average":
            self.members.append([make(None) for make in chain[:members]])
        self.after = made[members:]

    @property
    def layers(self):
        """All layers: those of each member, and those after."""
        every = [self.pool, *sum(self.members, []), *self.after]
        return [layer for layer in every if isinstance(layer, layers.Layer)]

    @property
    def is_chain(self):
        """Whether the head is layers that each read the one before."""
        return len(self.members) == 1 and all(
            isinstance(step, layers.Layer) for step in self.members[0]
        )

    def __call__(self, x):
        """Returns `(logits, output)`."""
        x = x if self.pool is None else self.pool(x)
        results, logits = [], None
        for member in self.members:
            value = x
            for step in member:
                value = step(value)
                logits = value if logits is None else logits
            results.append(value)
        value = results if len(results) > 1 else results[0]
        for layer in self.after:
            value = layer(value)
        return logits, value
