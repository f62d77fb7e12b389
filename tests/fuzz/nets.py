"""Small teachers and students, with their outputs and losses in float64 NumPy."""

import functools

import keras
import numpy as np
import reference
from fuzz.verdict import Refused
from keras import ops

from keras_dskd import losses

#: Ways to write a model. Each has the layers "hidden" and "logits".
KINDS = ("functional", "sequential", "subclassed", "nested", "maps", "two inputs")
OUTPUTS = ("one", "list", "dict")
POSITIONS = 3


def dense(units, name, seed, activation=None):
    return keras.layers.Dense(
        units,
        activation,
        kernel_initializer=keras.initializers.GlorotUniform(seed),
        bias_initializer=keras.initializers.RandomUniform(seed=seed),
        name=name,
    )


class Subclassed(keras.Model):
    """A model whose layer graph is unknown."""

    def __init__(self, hidden, heads, outputs, **kwargs):
        super().__init__(**kwargs)
        self.hidden = hidden
        self.heads = heads
        self.outputs_kind = outputs

    def call(self, inputs):
        x = self.hidden(inputs)
        return structure_of(self.outputs_kind, [head(x) for head in self.heads])


def structure_of(outputs, values):
    if outputs == "one":
        return values[0]
    if outputs == "dict":
        return dict(zip(("logits", "aux"), values, strict=True))
    return list(values)


class Net:
    """A model of one kind, and its features in float64."""

    def __init__(self, role, kind, width, hidden, classes, outputs):
        self.role, self.kind, self.width, self.outputs = role, kind, width, outputs
        self.sizes = hidden, classes
        self.classes = classes
        self._make()
        self.weights = self.model.get_weights()

    def _make(self):
        hidden, classes = self.sizes
        seed = 100 if self.role == "teacher" else 1
        self.hidden = dense(hidden, "hidden", seed, "tanh")
        self.heads = [dense(classes, "logits", seed + 1)]
        if self.outputs != "one":
            self.heads.append(dense(2, "aux", seed + 2))
        self.model = self._model(self.role)

    def reset(self):
        """Restores the weights. A NaN gradient changes them even if the rate is 0.

        On JAX, a `fit` that raises can leave a Keras model without weights.
        """
        if any(variable._value is None for variable in self.model.variables):
            self._make()
        else:
            self.model.set_weights(self.weights)

    def _model(self, role):
        if self.kind == "subclassed":
            model = Subclassed(self.hidden, self.heads, self.outputs, name=role)
            model(np.zeros((2, self.width), "float32"))
            return model
        if self.kind == "sequential":
            inputs = keras.Input((self.width,))
            return keras.Sequential([inputs, self.hidden, *self.heads], name=role)
        if self.kind == "two inputs":
            # Keras matches a dict with the names of the inputs.
            inputs = {key: keras.Input((self.width,), name=key) for key in ("a", "b")}
            x = self.hidden(keras.layers.Add()([inputs["a"], inputs["b"]]))
        elif self.kind == "maps":
            inputs = keras.Input((POSITIONS, self.width))
            x = keras.layers.GlobalAveragePooling1D(data_format="channels_last")(
                self.hidden(inputs)
            )
        elif self.kind == "nested":
            inside = keras.Input((self.width,))
            body = keras.Model(inside, self.hidden(inside), name="body")
            inputs = keras.Input((self.width,))
            x = body(inputs)
        else:
            inputs = keras.Input((self.width,))
            x = self.hidden(inputs)
        outputs = structure_of(self.outputs, [head(x) for head in self.heads])
        return keras.Model(inputs, outputs, name=role)

    def data(self, n, seed):
        """An input of `n` samples, in the structure of the model's input."""
        rng = np.random.default_rng(seed)
        shape = (n, POSITIONS, self.width) if self.kind == "maps" else (n, self.width)
        x = rng.normal(size=shape).astype("float32")
        if self.kind != "two inputs":
            return x
        return {"a": x, "b": rng.normal(size=shape).astype("float32")}

    def features(self, x):
        """Dict of layer name to feature; `None` is the name of the model's output."""
        x = keras.tree.map_structure(lambda array: np.asarray(array, "float64"), x)
        x = x["a"] + x["b"] if self.kind == "two inputs" else x
        hidden = np.tanh(affine(self.hidden, x))
        pooled = hidden.mean(axis=1) if self.kind == "maps" else hidden
        heads = [affine(head, pooled) for head in self.heads]
        return {
            "hidden": hidden,
            "logits": heads[0],
            None: structure_of(self.outputs, heads),
        }


net = functools.lru_cache(maxsize=None)(Net)


def affine(layer, x):
    kernel, bias = layer.get_weights()
    return x @ kernel.astype("float64") + bias


class Means(keras.distillation.DistillationLoss):
    """A user-defined loss for any two tensors."""

    def __init__(self, teacher_layer_name=None, student_layer_name=None):
        self.teacher_layer_name = teacher_layer_name
        self.student_layer_name = student_layer_name

    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        return ops.abs(ops.mean(teacher_outputs) - ops.mean(student_outputs))


class WeightedMeans(Means):
    """A user-defined loss that applies sample weights."""

    def compute_loss(
        self, teacher_outputs, student_outputs, sample_weight=None, **kwargs
    ):
        gaps = ops.square(_of_samples(teacher_outputs) - _of_samples(student_outputs))
        return ops.mean(gaps if sample_weight is None else gaps * sample_weight)


def _of_samples(feature):
    return ops.mean(ops.reshape(feature, (ops.shape(feature)[0], -1)), axis=1)


def _makers():
    feature_distillation = keras.distillation.FeatureDistillation
    return {
        "soft": lambda t, s: losses.SoftTargets(2.0, t, s),
        "aligned": lambda t, s: losses.ChannelAlignment(t, s),
        "guided": lambda t, s: losses.ChannelIndependence(t, s),
        "own": lambda t, s: losses.ChannelIndependence(t, s, target="self"),
        "pooled": lambda t, s: losses.SpatialUniformity(s),
        "flattened": lambda t, s: losses.SpatialUniformity(s, rows="flattened"),
        "positions": lambda t, s: losses.SpatialUniformity(s, rows="positions"),
        "feature": lambda t, s: feature_distillation("mse", t, s),
        "logits": lambda t, s: keras.distillation.LogitsDistillation(3.0, "mse"),
        "user": Means,
        "weighted user": WeightedMeans,
    }


MAKERS = _makers()


def refuse_unless(condition):
    if not condition:
        raise Refused


def term(kind, teacher, student, weight=None, mask=None):
    """The value of a loss in float64.

    Args:
        kind: Key of `MAKERS`.
        teacher: Teacher's feature.
        student: Student's feature.
        weight: Sample weights, or `None`.
        mask: `True` for samples with a teacher, or `None`.

    Raises:
        Refused: If the loss does not accept these features.
    """
    refuse_unless(kind == "soft" or isinstance(student, np.ndarray))
    if kind == "own" or kind in _ROWS:
        rows = reference.rows(student, kind if kind in _ROWS else "pooled")
        refuse_unless(len(rows) > 1)
        if kind == "own":
            return reference.off_diagonal_energy(rows)
        return reference.spatial_uniformity(rows)
    if kind == "soft":
        pairs = _one_structure(teacher, student)
        refuse_unless(all(t.shape[-1] > 1 for t, _ in pairs))
        return sum(
            _weighed(
                lambda t, s: reference.soft_targets(t, s, 2.0), *pair, weight, mask
            )
            for pair in pairs
        )
    refuse_unless(isinstance(teacher, np.ndarray))
    if kind in ("aligned", "guided"):
        pair = reference.rows(teacher), reference.rows(student)
        refuse_unless(pair[0].shape == pair[1].shape and len(pair[0]) > 1)
        if mask is not None:
            pair = pair[0][mask], pair[1][mask]
        if len(pair[0]) < 2:
            return 0.0
        if kind == "aligned":
            return reference.channel_alignment(*pair)
        return reference.guided_channel_independence(*pair)
    if kind == "user":
        refuse_unless(mask is None)
        return np.abs(teacher.mean() - student.mean())
    if kind == "weighted user":
        return _weighed(
            lambda t, s: (t.mean() - s.mean()) ** 2, teacher, student, weight, mask
        )
    refuse_unless(teacher.shape == student.shape)
    scale = 1.0 if kind == "feature" else 3.0
    return _weighed(
        lambda t, s: np.mean(((t - s) / scale) ** 2), teacher, student, weight, mask
    )


def _weighed(value, teacher, student, weight, mask):
    """Mean of weight times value, over the samples with a teacher."""
    n = len(student)
    values = np.array([value(teacher[i : i + 1], student[i : i + 1]) for i in range(n)])
    values = values if weight is None else values * weight
    values = values if mask is None else values[mask]
    return values.mean() if values.size else 0.0


_ROWS = ("pooled", "flattened", "positions")


def _one_structure(teacher, student):
    refuse_unless(type(teacher) is type(student))
    pairs = list(
        zip(keras.tree.flatten(teacher), keras.tree.flatten(student), strict=False)
    )
    refuse_unless(len(keras.tree.flatten(teacher)) == len(keras.tree.flatten(student)))
    refuse_unless(all(t.shape == s.shape for t, s in pairs))
    return pairs
