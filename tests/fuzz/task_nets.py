"""Models of random heads, and what their taps read."""

import contextlib
from typing import NamedTuple

import keras
import numpy as np
from fuzz.heads import BODIES, POSITIONS, STEPWISE, Body, HeadLayers
from keras import ops

FORMS = ("functional", "functional", "sequential", "nested", "subclassed")
POLICIES = (
    *["float32"] * 4,
    "mixed_float16",
    "mixed_bfloat16",
    "float16",
    "bfloat16",
)


class Output(NamedTuple):
    """What a tap reads, in float64, with the mask of its real steps."""

    values: np.ndarray
    mask: np.ndarray | None
    kind: str | None


@contextlib.contextmanager
def policy(name):
    """A context in which layers get this dtype policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


class Subclassed(keras.Model):
    """A model whose layer graph is unknown."""

    def __init__(self, body, heads, outputs, **kwargs):
        super().__init__(**kwargs)
        self.parts = sum([part.layers for part in (body, *heads)], [])
        self.apply = [lambda x: outputs(body(x))]

    def call(self, inputs):
        return self.apply[0](inputs)


class Net:
    """A model, what its taps read, and its data."""

    def __init__(self, role, form, body, heads, outputs, policy_name, seed):
        drawn = np.random.default_rng(seed)
        positions = next(POSITIONS[kind] for kind in BODIES if body in BODIES[kind])
        self.form, self.outputs_kind = form, outputs

        def seeds():
            return int(drawn.integers(2**31))

        with policy(policy_name):
            self.body = Body(body, 5 if role == "teacher" else 4, seeds)
            self.heads = [
                HeadLayers(head, name, positions, role == "teacher", seeds)
                for head, name in zip(heads, "ab", strict=False)
            ]
            self.model = self._model(role)

    def _model(self, role):
        if self.form == "subclassed":
            model = Subclassed(self.body, self.heads, self._outputs, name=role)
            model(self.body.data(2, np.random.default_rng(0), "float32")[0])
            return model
        x = keras.Input(self.body.input_shape, dtype=self.body.input_dtype)
        if (
            self.form == "sequential"
            and len(self.heads) == 1
            and self.heads[0].is_chain
        ):
            chain = [*self.body.layers, *self.heads[0].layers]
            return keras.Sequential([x, *chain], name=role)
        model = keras.Model(x, self._outputs(self.body(x)), name=role)
        if self.form != "nested":
            return model
        x = keras.Input(self.body.input_shape, dtype=self.body.input_dtype)
        return keras.Model(x, model(x), name=f"outer_{role}")

    def _outputs(self, x):
        return structure_of(self.outputs_kind, [head(x)[1] for head in self.heads])

    def taps(self, x, mask):
        """Dict of tap -> `Output`."""
        features = self.body(ops.convert_to_tensor(x))
        found = {}
        for name, layers_of in zip("ab", self.heads, strict=False):
            head = layers_of.head
            masked = None if head.is_pooled or self.body.kind not in STEPWISE else mask
            is_known = self.form != "subclassed" and head.kind != "relu"
            logits, values = map(numbers, layers_of(features))
            found[f"out_{name}"] = Output(
                values, masked, head.kind if is_known else None
            )
            if head.kind == "linear" or head.how != "argument":
                found[f"logits_{name}"] = Output(logits, masked, "linear")
        return found


def structure_of(outputs, values):
    """One value, a list, or a dict."""
    if outputs == "dict":
        return dict(zip("ab", values, strict=True))
    return list(values) if outputs == "list" else values[0]


def numbers(tensor):
    """A tensor in float64."""
    tensor = ops.cast(tensor, "float32")
    return np.asarray(ops.convert_to_numpy(tensor), "float64")
