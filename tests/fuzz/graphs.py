"""Random layer graphs, and the output of each layer call computed in NumPy.

A graph is drawn from a seed. All tensors have shape `(n, WIDTH)`, so any layer can
follow any other, be shared, and be called again anywhere.
"""

import keras
import numpy as np
from keras import ops

WIDTH = 4
NAMES = ("a", "b", "c", "d", "conv1", "block_1")
FORMS = ("functional", "sequential", "subclassed", "composite")


class Several(keras.layers.Layer):
    """A layer with two outputs, in a list or in a dict."""

    def __init__(self, as_dict=False, **kwargs):
        super().__init__(**kwargs)
        self.as_dict = as_dict

    def call(self, inputs):
        outputs = [inputs, -2.0 * inputs]
        return {"one": outputs[0], "two": outputs[1]} if self.as_dict else outputs


class Leaf:
    """A Keras layer, and the same computation in float64 NumPy."""

    def __init__(self, kind, name, seed):
        self.kind = kind
        self.name = name
        self.children = []
        self.calls = []
        self.layer = {
            "dense": lambda: keras.layers.Dense(
                WIDTH,
                kernel_initializer=keras.initializers.GlorotUniform(seed % 1000),
                bias_initializer=keras.initializers.RandomNormal(seed=seed % 1000),
                name=name,
            ),
            "tanh": lambda: keras.layers.Activation("tanh", name=name),
            "norm": lambda: keras.layers.BatchNormalization(name=name),
            "dropout": lambda: keras.layers.Dropout(0.5, name=name),
            "list": lambda: Several(False, name=name),
            "dict": lambda: Several(True, name=name),
        }[kind]()

    def __call__(self, x):
        return _second(self.layer(x))

    def replay(self, x):
        if self.kind == "dense":
            kernel, bias = self.layer.get_weights()
            y = x @ kernel.astype("float64") + bias
        elif self.kind == "tanh":
            y = np.tanh(x)
        elif self.kind == "norm":
            y = x / np.sqrt(1 + 1e-3)  # mean 0 and variance 1 before training
        elif self.kind == "list":
            y = [x, -2 * x]
        elif self.kind == "dict":
            y = {"one": x, "two": -2 * x}
        else:
            y = x
        self.calls.append(y)
        return _second(y)


class Block:
    """A model or layer that calls other layers one after another.

    A step is a node, or a pair of nodes whose outputs are added.
    """

    def __init__(self, form, name, steps):
        self.form = form
        self.name = name
        self.steps = steps
        nodes = [n for step in steps for n in _as_tuple(step)]
        self.children = list({id(node): node for node in nodes}.values())
        self.calls = []
        if form == "functional":
            inputs = keras.Input((WIDTH,))
            self.layer = keras.Model(inputs, self._run(inputs), name=name)
        elif form == "sequential":
            self.layer = keras.Sequential(
                [keras.Input((WIDTH,)), *(node.layer for node in self.children)],
                name=name,
            )
        else:
            base = HoldsLayers if form == "composite" else HoldsModel
            self.layer = base(self, name=name)

    def _run(self, x):
        for step in self.steps:
            added = [node(x) for node in _as_tuple(step)]
            x = added[0] if len(added) == 1 else ops.add(*added)
        return x

    def __call__(self, x):
        return self.layer(x)

    def replay(self, x):
        for step in self.steps:
            x = sum(node.replay(x) for node in _as_tuple(step))
        self.calls.append(x)
        return x


class _Holds:
    """Runs the steps of a block in `call`, and holds their layers as attributes."""

    def __init__(self, block, name):
        super().__init__(name=name)
        self.parts = [node.layer for node in block.children]
        self.run = block._run

    def build(self, input_shape):
        self.built = True

    def call(self, inputs):
        return self.run(inputs)


class HoldsLayers(_Holds, keras.layers.Layer):
    """A layer that is not a model."""


class HoldsModel(_Holds, keras.Model):
    """A subclassed model."""


class Graph:
    """A model drawn from a seed, with its paths and its layer calls on `self.x`."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.made = []
        self.has_branches = False
        form = self._one_of(FORMS[:3])
        self.top = self._block(form, "net", depth=0)
        self.model = self.top.layer
        self.x = self.rng.normal(size=(3, WIDTH)).astype("float32")
        self.model(self.x)
        for node in self.made:
            node.calls.clear()
        self.output = self.top.replay(self.x.astype("float64"))
        self.paths = []
        self._list_paths(self.top, ())

    def _one_of(self, options):
        return options[self.rng.integers(len(options))]

    def _block(self, form, name, depth):
        steps, names = [], {}
        for _ in range(self.rng.integers(1, 5)):
            width = 1
            if form != "sequential" and self.rng.random() < 0.2:
                width, self.has_branches = 2, True
            step = [self._node(form, names, depth) for _ in range(width)]
            if None not in step:
                steps.append(tuple(step))
        steps = steps or [(self._leaf(f"only_{len(self.made)}"),)]
        block = Block(form, name, steps)
        self.made.append(block)
        return block

    def _node(self, form, names, depth):
        """A new node, or one that exists; names are unique within a block."""
        again = [
            node
            for node in self.made
            if names.get(node.name, node) is node
            and not (form == "sequential" and node.name in names)
            and not (form == "sequential" and getattr(node, "kind", "") in _SEVERAL)
        ]
        if again and self.rng.random() < 0.25:
            node = self._one_of(again)
        else:
            free = [name for name in NAMES if name not in names]
            if not free:
                return None
            name = self._one_of(free)
            if depth < 3 and self.rng.random() < 0.35:
                node = self._block(self._one_of(FORMS), name, depth + 1)
            else:
                node = self._leaf(name, single=form == "sequential")
        names[node.name] = node
        return node

    def _leaf(self, name, single=True):
        kinds = ["dense", "dense", "tanh", "norm", "dropout"]
        kind = self._one_of(kinds if single else [*kinds, *_SEVERAL])
        leaf = Leaf(kind, name, int(self.rng.integers(2**31)))
        self.made.append(leaf)
        return leaf

    def _list_paths(self, block, prefix):
        for node in block.children:
            path = (*prefix, node.name)
            self.paths.append((path, node))
            self._list_paths(node, path)

    def find(self, path):
        """All nodes with this path, or with a path that ends in it."""
        whole = {id(n): n for p, n in self.paths if p == path}
        ends = {id(n): n for p, n in self.paths if p[-len(path) :] == path}
        return list(whole.values()) if len(whole) == 1 else list(ends.values())

    def layers(self):
        return [node.layer for node in self.made]


_SEVERAL = ("list", "dict")


def _as_tuple(step):
    return step if isinstance(step, tuple) else (step,)


def _second(y):
    """The output that the next layer gets, if there are several."""
    if isinstance(y, dict):
        return y["two"]
    return y[1] if isinstance(y, list) else y
