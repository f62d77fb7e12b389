"""Random networks of several kinds for the recipes, and what these must report."""

from typing import NamedTuple

import keras
import numpy as np
import reference
from fuzz import task_nets
from fuzz.task_cases import IS_TENSORFLOW, absolute
from fuzz.task_nets import Output
from fuzz.task_specs import IS_TORCH, KINDS, Term
from fuzz.task_values import own_value, refuse_unless, term_value
from keras import layers

import keras_dskd

NETS = ("images", "u-net", "signals", "steps", "padded steps", "padded sequences")
SIZE = 8
LOSS_OF = {"multiclass": "soft", "binary": "binary", "regression": "regression"}
PROBABILITIES = {"softmax": "multiclass", "sigmoid": "binary"}


class RecipeSpec(NamedTuple):
    """Everything that is drawn. See `draw`."""

    seed: int
    recipe: str
    net: str
    n: int
    policies: tuple[str, str]
    units: int
    kinds: tuple[str, str]
    task: str | None
    compiled: str
    weighted: bool
    taught: bool


def draw(seed):
    """A `RecipeSpec` from a seed."""
    rng = np.random.default_rng(seed)

    def pick(values):
        return values[rng.integers(len(values))]

    net, right = pick(NETS), pick(tuple(KINDS))
    units = pick((2, 3)) if right == "multiclass" else pick((1, 1, 3))
    kinds = [
        pick(("linear", "linear", *PROBABILITIES))
        if rng.random() < 0.1
        else pick(KINDS[right][:2])
        for _ in range(2)
    ]
    if units == 1 or (net == "u-net" and IS_TORCH):
        kinds = ["linear" if kind == "softmax" else kind for kind in kinds]
    compiled = pick(("custom", *KINDS)) if rng.random() < 0.15 else right
    if compiled == "multiclass" and (units == 1 or kinds[1] == "sigmoid"):
        compiled = "binary"
    task = pick((None, None, right))
    return RecipeSpec(
        seed,
        pick(("dskd", "recommended")),
        net,
        pick((2, 4, 5, 5, 1)),
        (pick(task_nets.POLICIES), pick(task_nets.POLICIES)),
        units,
        tuple(kinds),
        pick(tuple(KINDS)) if rng.random() < 0.08 else task,
        compiled,
        bool(rng.random() < 0.3),
        bool(rng.random() < 0.3),
    )


def network(role, spec, seed):
    """A functional model with the layer "out"."""
    drawn = np.random.default_rng(seed)
    width = 5 if role == "teacher" else 4
    kind = spec.kinds[role == "student"]

    def random():
        return keras.initializers.RandomNormal(0, 0.5, int(drawn.integers(2**31)))

    def conv(x, units=width, size=3, **kwargs):
        rank = 2 if spec.net in ("images", "u-net") else 1
        layer = [layers.Conv1D, layers.Conv2D][rank - 1]
        given = {"kernel_initializer": random(), "padding": "same", **kwargs}
        return layer(units, size, data_format="channels_last", **given)(x)

    x = inputs = keras.Input(input_shape(spec.net, width))
    if spec.net == "u-net":
        skips = []
        for _ in range(2):
            x = conv(x, activation="relu")
            skips.append(x)
            x = layers.AveragePooling2D(2)(x)
        x = conv(x, activation="relu")
        for skip in reversed(skips):
            x = layers.Concatenate()([layers.UpSampling2D()(x), skip])
            x = conv(x, activation="tanh")
        x = conv(x, spec.units, 1, name="logits")
    elif spec.net in ("images", "signals"):
        pools = [layers.AveragePooling1D, layers.AveragePooling2D]
        pool = pools[spec.net == "images"]
        for _ in range(3):
            x = pool(2, data_format="channels_last")(conv(x, activation="tanh"))
        x = layers.Flatten()(x)
    else:
        if spec.net.startswith("padded"):
            x = layers.Masking()(x)
        for last in (False, False, spec.net == "padded sequences"):
            x = layers.SimpleRNN(
                width,
                kernel_initializer=random(),
                recurrent_initializer=random(),
                return_sequences=not last,
            )(x)
    if spec.net != "u-net":
        x = layers.Dense(spec.units, kernel_initializer=random(), name="logits")(x)
    return keras.Model(inputs, layers.Activation(kind, name="out")(x), name=role)


def input_shape(net, width):
    if net in ("images", "u-net"):
        return (SIZE, SIZE, width)
    return (SIZE, width)


class RecipeCase:
    """A distiller that a recipe makes, its data, and the values it must report."""

    def __init__(self, spec):
        self.spec = spec
        rng = np.random.default_rng(spec.seed)
        self.x, self.masks, self.models, self.outputs = {}, {}, {}, {}
        for i, role in enumerate(("teacher", "student")):
            with task_nets.policy(spec.policies[i]):
                self.models[role] = network(role, spec, spec.seed + i)
            shape = (spec.n, *input_shape(spec.net, 5 - i))
            self.x[role] = rng.normal(size=shape).astype("float32")
            self.masks[role] = None
            if spec.net.startswith("padded"):
                lengths = rng.integers(1, SIZE + 1, (spec.n, 1))
                self.masks[role] = np.arange(SIZE) < lengths
                self.x[role] *= self.masks[role][..., None]
            self.outputs[role] = self.feature(role, "out", spec.kinds[i])
        self.taught = rng.random(spec.n) < 0.7 if spec.taught else None
        self.y = self._labels(rng)
        self.weight = None
        if spec.weighted:
            shape = self.y.shape[:-1] if self.y.ndim > 2 else (spec.n,)
            self.weight = rng.uniform(0.1, 2, shape).astype("float32")

    def feature(self, role, name, kind=None):
        """What a layer returns, with its mask."""
        model = self.models[role]
        probe = keras.Model(model.inputs, model.get_layer(name).output)
        values = task_nets.numbers(probe(keras.ops.convert_to_tensor(self.x[role])))
        return Output(values, self.masks[role] if values.ndim == 3 else None, kind)

    def _labels(self, rng):
        shape = self.outputs["student"].values.shape
        if self.spec.compiled == "multiclass":
            y = rng.integers(0, shape[-1], shape[:-1])
            return np.eye(shape[-1], dtype="float32")[y]
        y = rng.normal(size=shape)
        return (y > 0 if self.spec.compiled == "binary" else y).astype("float32")

    def run(self):
        """The distiller and the logs of one step."""
        recipe = getattr(keras_dskd, self.spec.recipe)
        made = recipe(*self.models.values(), task=self.spec.task)
        from_logits = self.spec.kinds[1] not in PROBABILITIES
        loss = {
            "multiclass": keras.losses.CategoricalCrossentropy(from_logits=from_logits),
            "binary": keras.losses.BinaryCrossentropy(from_logits=from_logits),
            "regression": "mse",
            "custom": absolute,
        }[self.spec.compiled]
        made.compile(keras.optimizers.SGD(0.0), loss, run_eagerly=True)
        x = dict(self.x)
        if self.taught is not None:
            x["teacher_mask"] = self.taught
        return made, made.train_on_batch(x, self.y, self.weight, return_dict=True)

    def output_loss(self):
        """The name and the value of the loss of the output.

        Raises:
            Refused: If an error is due.
        """
        spec = self.spec
        seen = {spec.task} - {None}
        if spec.task != "regression":
            seen |= {
                PROBABILITIES[kind] for kind in spec.kinds if kind in PROBABILITIES
            }
        refuse_unless(len(seen) < 2 and (seen or spec.compiled != "custom"))
        task = seen.pop() if seen else spec.compiled
        is_known = task in (spec.compiled, "regression") or spec.compiled == "custom"
        refuse_unless(is_known or spec.kinds[1] in PROBABILITIES)
        # Batch statistics need two samples, or positions.
        refuse_unless(spec.n > 1 or self.aligns_positions())
        logits = tuple(kind not in PROBABILITIES for kind in spec.kinds)
        temperature = "auto" if task == "multiclass" else 4.0
        term = Term(LOSS_OF[task], None, logits, temperature, 0.0, None, None)
        outputs = self.outputs["teacher"], self.outputs["student"]
        value = term_value(term, *outputs, None, self.taught, self.weight)
        return term.make().name, value

    def expected(self, made, name, value):
        """The logs of a step, given the recipe's layers and projectors."""
        own = own_value(
            self.spec.compiled,
            self.outputs["student"],
            self.y,
            self.weight,
            None,
            self.spec.kinds[1] not in PROBABILITIES,
        )
        terms = {
            term.name: self._structure(term.loss, made.projectors)
            for term in made.loss_terms[1:]
        }
        assert len(terms) == 2
        if IS_TENSORFLOW and self.spec.compiled == "binary":
            # Keras takes the logits of a softmax for those of a sigmoid.
            own = np.nan if self.spec.kinds[1] == "softmax" else own
        # The weights of the structure rise from 0.
        loss = 0.5 * own + 0.5 * value
        return {"student_loss": own, name: value, **terms, "loss": loss}

    def _structure(self, loss, projectors):
        student = self.pooled("student", loss.student_layer_name)
        if isinstance(loss, keras_dskd.losses.SpatialUniformity):
            return reference.spatial_uniformity(student)
        if isinstance(loss, keras_dskd.losses.ChannelIndependence):
            return reference.off_diagonal_energy(student)
        projector = projectors[loss.student_layer_name]
        kernel, bias = projector.get_weights()
        is_dense = self.aligns_positions()
        assert loss.rows == ("positions" if is_dense else "pooled")
        read = self.maps if is_dense else self.pooled
        teacher = read("teacher", loss.teacher_layer_name)
        student = read("student", loss.student_layer_name)
        kept = np.full(student.shape[:-1], True)
        if self.taught is not None:
            kept &= self.taught.reshape(-1, *[1] * (kept.ndim - 1))
        for mask in self.masks.values():
            kept &= mask if is_dense and mask is not None else True
        student = student @ kernel.reshape(kernel.shape[-2:]) + bias
        if np.sum(kept) < 2:
            return 0.0
        return reference.channel_alignment(teacher[kept], student[kept])

    def aligns_positions(self):
        """Whether the student predicts at each position, and the recipe aligns it."""
        is_dense = self.outputs["student"].values.ndim > 2
        return is_dense and self.spec.recipe == "recommended"

    def maps(self, role, name):
        """A layer's feature at each position."""
        return self.feature(role, name).values

    def pooled(self, role, name):
        """The mean of a layer's feature over its real positions."""
        values, mask, _ = self.feature(role, name)
        if mask is None:
            return reference.rows(values)
        return (values * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
