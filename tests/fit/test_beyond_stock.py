"""Defects of `keras.distillation.Distiller` that `keras_dskd.Distiller` does not have.

Each test looks for the symptoms of a defect in both classes. Keras's class must show
all of them, so that a release that fixes one fails here. Ours must show none. The
table of `migrating.md` comes from the same data: run this file with PYTHONPATH=tests to
print it. The README has some of its rows.
"""

import functools
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import reference
from keras import ops
from keras.distillation import FeatureDistillation, LogitsDistillation
from small_models import (
    CLASSES,
    AddsLoss,
    Counting,
    Subclassed,
    cnn,
    copy_of,
    crossentropy,
    images,
    labels,
    mlp,
    numbers,
    rows,
    standing_still,
)

import keras_dskd

FIT = Path(__file__).parent
BACKEND = keras.backend.backend()
STOCK, OURS = keras.distillation.Distiller, keras_dskd.Distiller
X, Y = rows(8), labels(8)

# The version in which the symptoms were observed.
TABLE = ["| | keras.distillation 3.15.1 | keras_dskd |", "|---|---|---|"]


class AsObserved(AssertionError):
    """Keras's class shows all symptoms of a defect."""


def defect(what, stock, ours, stock_on="torch"):
    """Turns a generator into a row of the table and a test of both classes.

    The generator yields each symptom and whether the class shows it. Its docstring
    says what was measured with Keras's class. Ours is tested on every backend, and
    Keras's on `stock_on`.
    """
    TABLE.append(f"| {what} | {stock} | {ours} |")

    def decorate(symptoms):
        reason = f"{stock}. {symptoms.__doc__}"
        fails = pytest.mark.xfail(strict=True, raises=AsObserved, reason=reason)
        # Its feature models and its files cause these warnings.
        warns = pytest.mark.filterwarnings("ignore::UserWarning:keras.*")
        elsewhere = pytest.mark.skipif(
            BACKEND != stock_on, reason=f"Keras's class is tested on {stock_on}"
        )
        stock_kind = pytest.param(
            STOCK, id="keras.distillation", marks=[fails, warns, elsewhere]
        )

        @pytest.mark.parametrize("kind", [stock_kind, pytest.param(OURS, id="ours")])
        @functools.wraps(symptoms)
        def test(kind, **fixtures):
            looked_for = dict(symptoms(kind, **fixtures))
            shown = [symptom for symptom, is_shown in looked_for.items() if is_shown]
            if kind is STOCK and shown == list(looked_for):
                raise AsObserved(shown)
            assert shown == [], f"of {[*looked_for]}"

        return test

    return decorate


def drawn(model, seed):
    """Sets weights that are the same on every backend."""
    generator = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(generator.normal(size=variable.shape))
    return model


def linear(seed, **kwargs):
    dense = keras.layers.Dense(CLASSES, **kwargs)
    return drawn(keras.Sequential([keras.Input((4,)), dense]), seed)


def teacher(width=4, **kwargs):
    return drawn(mlp(width, name="teacher", **kwargs), seed=1)


def student(**kwargs):
    return drawn(mlp(4, **kwargs), seed=2)


def distiller(kind, losses=None, models=(), optimizer=None, loss=None, **kwargs):
    models = models or (teacher(), student())
    made = kind(*models, losses or FeatureDistillation(), **kwargs)
    made.compile(optimizer or standing_still(), loss or crossentropy())
    return made


def fit(model, x=X, y=Y, **kwargs):
    return numbers(model.fit(x, y, **{"batch_size": 8, "verbose": 0, **kwargs}))


def predicted(model, x=X, layer=None):
    if layer:
        model = keras.Model(model.inputs[0], model.get_layer(layer).output)
    return keras.tree.map_structure(ops.convert_to_numpy, model(x, training=False))


def mean_square(a, b):
    return np.mean((a.astype("float64") - b) ** 2)


def is_close(received, expected):
    # A few float32 sums, compared with NumPy or another program.
    return np.allclose(received, expected, rtol=1e-4, atol=1e-6)


def equal(weights, others):
    return all(np.array_equal(a, b) for a, b in zip(weights, others, strict=True))


def is_refused(message, action, *args, **kwargs):
    try:
        action(*args, **kwargs)
    except (AttributeError, ValueError) as error:
        assert message in str(error)
        return True
    return False


def check_step(expected, *args, x=X, y=Y, of="distillation_loss", **kwargs):
    assert is_close(fit(distiller(*args, **kwargs), x, y)[of], expected)


def of_plain_fit(model, **kwargs):
    """The loss that the model's own `fit` reports."""
    plain = copy_of(model)
    plain.compile(standing_still(), crossentropy())
    return fit(plain, **kwargs)["loss"]


@defect("Soft targets by default", "no softmax, no T²", "those of Hinton et al. 2015")
def test_soft_targets_are_hintons(kind):
    """5.887 instead of 3.533 at T=2, 0.088 for 3.669 at T=100; -0.005 for 5 more."""
    by_default = {STOCK: LogitsDistillation, OURS: keras_dskd.losses.SoftTargets}
    for temperature in (2.0, 100.0):
        made = distiller(kind, by_default[kind](temperature))
        logits = predicted(made.teacher), predicted(made.student)
        expected = reference.soft_targets(*logits, temperature)
        received = fit(made)["distillation_loss"]
        yield f"another value at T={temperature}", not is_close(received, expected)
    bias = made.student.get_layer("logits").bias
    bias.assign(bias + 5.0)
    shifted = fit(made)["distillation_loss"]
    yield "a constant added to logits changes it", not is_close(shifted, received)


@defect("`sample_weight`, `class_weight`", "ignored", "weigh labels and teacher alike")
def test_sample_and_class_weights_weigh(kind):
    """A student loss of 3.55, not 1.58 with sample or 4.41 with class weights."""
    made, half = distiller(kind), np.repeat([1.0, 0.0], 4)
    for weights in ({"sample_weight": half}, {"class_weight": {0: 0.2, 1: 1, 2: 5}}):
        received = fit(made, **weights)["student_loss"]
        expected = of_plain_fit(made.student, **weights)
        yield f"{[*weights]} ignored", not is_close(received, expected)
    received = fit(made, sample_weight=half)["distillation_loss"]
    logits = predicted(made.teacher, X[:4]), predicted(made.student, X[:4])
    expected = mean_square(*logits) / 2
    yield "the teacher guides samples of weight 0", not is_close(received, expected)


@defect("The student's `add_loss`, regularizers", "dropped", "part of its loss")
def test_the_students_own_losses_count(kind):
    """A student loss of 3.55, not 5.27 with `add_loss` or 5.11 with a regularizer."""
    for what, model in (
        ("add_loss", keras.Sequential([student(), AddsLoss(0.3)])),
        ("regularizer", student(kernel_regularizer=keras.regularizers.L2(0.1))),
    ):
        received = fit(distiller(kind, models=(teacher(), model)))["student_loss"]
        yield f"{what} dropped", not is_close(received, of_plain_fit(model))


def on_images(kind, student_layer):
    """Uses a student that counts its passes, with batch statistics and dropout."""
    extra = [Counting(name="count"), keras.layers.Dropout(0.5, name="noisy")]
    losses = FeatureDistillation("mse", "gap", student_layer)
    made = distiller(kind, losses, (cnn(1, name="teacher"), cnn(1, extra=extra)))
    return made, made.student.get_layer("bn0"), images(8)


@defect("Losses on layers", "two student passes and BatchNorm updates", "one of each")
def test_features_are_of_the_one_forward_pass(kind):
    """2 passes per step; moving means change by 1.99 times the correct update."""
    made, normalization, x = on_images(kind, "gap")
    update = 0.01 * predicted(made.student, x, "conv0").mean(axis=(0, 1, 2))
    fit(made, x)
    yield "two passes", made.student.get_layer("count").count() != 1
    moved = ops.convert_to_numpy(normalization.moving_mean)
    yield "two updates of moving means", not is_close(moved, update)


@defect(
    "`evaluate` and validation",
    "a pass with `training=True`: dropout's noise, batch statistics of held-out data",
    "the student alone, in inference mode",
)
def test_evaluation_is_inference(kind):
    """With dropout, two evaluations give different results."""
    made, normalization, x = on_images(kind, "noisy")
    before = normalization.get_weights()
    first, second = (made.evaluate(x, Y, verbose=0, return_dict=True) for _ in "ab")
    yield "noise in results", not is_close(first["loss"], second["loss"])
    yield "evaluate changes weights", not equal(normalization.get_weights(), before)
    moved = []
    for options in ({}, {"validation_data": (x + 5.0, Y)}):
        normalization.set_weights(before)
        fit(made, x, shuffle=False, **options)
        moved.append(normalization.get_weights())
    yield "validation changes weights", not is_close(*moved)


def print_multiples_of_gradients():
    """Prints the ratio of each class's gradient over two replicas to NumPy's."""
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    halves = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, halves)
    y = rows(8, CLASSES, seed=1)
    # A second strategy in one program would reuse the first one's collective keys.
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    for kind in (STOCK, OURS):
        with strategy.scope():
            models = [linear(seed, use_bias=False) for seed in (1, 2)]
            made = kind(*models, FeatureDistillation())
            made.compile(keras.optimizers.SGD(1.0), "mse", jit_compile=False)
        (guiding,), (before,) = (model.get_weights() for model in models)
        fit(made, X, y)
        (after,) = models[1].get_weights()
        # Half of the mean square to the labels, and half of that to the teacher.
        gradient = X.T @ (2 * X @ before - y - X @ guiding) / y.size
        print(np.mean((before - after) / gradient))


@functools.cache
def multiples_of_gradients():
    # In another process: TensorFlow can only split a CPU before it runs.
    program = "import test_beyond_stock as t; t.print_multiples_of_gradients()"
    command = [sys.executable, "-c", program]
    path = os.pathsep.join(map(str, (FIT.parents[1], FIT.parent, FIT)))
    environment = {**os.environ, "PYTHONPATH": path}
    printed = subprocess.check_output(command, env=environment, text=True).split()
    return dict(zip((STOCK, OURS), map(float, printed[-2:]), strict=True))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.distribute needs TensorFlow")
@defect(
    "`tf.distribute`, N replicas",
    "gradients N times too large",
    "those of one device",
    stock_on="tensorflow",
)
def test_gradients_over_replicas_are_those_of_the_whole_batch(kind):
    """2.00 times NumPy's gradient over two replicas."""
    yield "other gradients", not is_close(multiples_of_gradients()[kind], 1.0)


@defect(
    "Weights of the losses",
    "`[0.1]` for a single loss becomes 1; changes have no effect once compiled",
    "as given; change at any time, or follow a schedule",
    stock_on="jax",  # Keras does not compile on torch.
)
def test_weights_are_those_given_and_may_change(kind):
    """A weight of 0.1 acts as 1.0; changed to 3.0 in a compiled program, still 1.0."""
    made = distiller(kind, distillation_loss_weights=[0.1])
    term = mean_square(predicted(made.teacher), predicted(made.student))
    values = fit(made)
    yield "0.1 is 1", not is_close(values["distillation_loss"], 0.1 * term)
    made.distillation_loss_weights, made.student_loss_weight = [3.0], 0.9
    values = fit(made)
    total = 0.9 * values["student_loss"] + 0.1 * values["distillation_loss"]
    yield "3.0 unseen", not is_close(values["distillation_loss"], 3.0 * term)
    yield "0.9 unseen", not is_close(values["loss"], total)


def nested():
    return keras.Sequential([mlp(4, name="backbone"), keras.layers.Dense(CLASSES)])


@defect(
    "Layer names",
    "the student's alone is dropped; width 1 broadcasts to 16; nested ones are refused",
    "any layer by name or path; other widths take a projector",
)
def test_named_layers_are_read(kind):
    """`ValueError` for layers of nested and subclassed models."""
    losses = FeatureDistillation("mse", student_layer_name="hidden")
    models = teacher(), student(hidden=CLASSES)
    expected = mean_square(predicted(models[0]), predicted(models[1], X, "hidden"))
    received = fit(distiller(kind, losses, models))["distillation_loss"]
    yield "one name dropped", not is_close(received, expected)
    losses = FeatureDistillation("mse", "hidden", "hidden")
    models = teacher(hidden=16), student(hidden=1)
    expected = mean_square(*(predicted(model, X, "hidden") for model in models))
    refused = is_refused("projector", check_step, expected, kind, losses, models)
    yield "width 1 broadcasts to 16", not refused
    for make, layer, message in (
        (nested, "backbone/hidden", "No such layer"),
        (Subclassed, "hidden", "appear to be subclassed"),
    ):
        models = make(), make()
        for seed, model in enumerate(models):
            model(X)
            drawn(model, seed)
        losses = FeatureDistillation("mse", layer, layer)
        weights = [model.get_weights() for model in models]
        features = [np.tanh(X @ kernel + bias) for kernel, bias, *_ in weights]
        args = mean_square(*features), kind, losses, models
        refused = is_refused(message, check_step, *args)
        yield f"{make.__name__} layers are refused", refused


@defect(
    "The teacher, and `trainable`",
    "frozen for good; trained by `distiller.trainable = True`; shared layers frozen",
    "never changed; layers shared with the student are trained",
)
def test_the_teacher_is_left_alone(kind):
    """The teacher's weights change after freezing and unfreezing the distiller."""
    made = distiller(kind, optimizer=keras.optimizers.SGD(0.1))
    yield "the teacher is frozen for good", not made.teacher.trainable
    before = made.teacher.get_weights()
    made.trainable = False
    made.trainable = True
    fit(made)
    yield "the teacher trains", not equal(made.teacher.get_weights(), before)
    backbone, heads = mlp(4), [keras.layers.Dense(CLASSES) for _ in "ab"]
    models = [keras.Sequential([backbone, head]) for head in heads]
    before = backbone.get_weights()
    fit(distiller(kind, models=models, optimizer=keras.optimizers.SGD(0.1)))
    yield "a shared backbone is frozen", equal(backbone.get_weights(), before)


@defect("Large features in `mixed_float16`", "infinite losses", "losses in float32")
def test_losses_on_features_are_finite_in_half_precision(kind):
    """Infinite if the mean square is 3.6e5."""
    models = [linear(seed, dtype="mixed_float16") for seed in (1, 2)]
    models[0].layers[-1].bias.assign([600.0] * CLASSES)
    expected = mean_square(*map(predicted, models))
    received = fit(distiller(kind, models=models))["distillation_loss"]
    # float16 has 11 bits.
    yield "another value", not np.allclose(received, expected, rtol=0.01)


class WithLayer(keras.distillation.DistillationLoss):
    """A user's loss with a layer."""

    def __init__(self):
        self.layer = keras.layers.Dense(CLASSES)
        self.layer.build((None, CLASSES))

    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        return ops.mean(ops.square(teacher_outputs - self.layer(student_outputs)))


@defect("Layers inside a loss", "never trained", "trained with the student")
def test_layers_inside_a_loss_are_trained(kind):
    """Their weights do not change."""
    loss = WithLayer()
    before = loss.layer.get_weights()
    fit(distiller(kind, loss, optimizer=keras.optimizers.SGD(0.1)))
    yield "the layer stays as it was", equal(loss.layer.get_weights(), before)


def two_headed(seed):
    inputs = keras.Input((4,))
    heads = {"kind": CLASSES, "size": 1}
    outputs = {n: keras.layers.Dense(w, name=n)(inputs) for n, w in heads.items()}
    return drawn(keras.Model(inputs, outputs), seed)


@defect(
    "Inputs and outputs",
    "must be alike in shape, dtype and structure; several outputs crash",
    "those of any two models, paired in a dict",
)
def test_any_two_models_are_paired(kind):
    """`ValueError` for each, at construction; for several outputs, in `fit`."""
    inputs = keras.Input((4,), dtype="uint8")
    integers = keras.Sequential([inputs, keras.layers.Rescaling(1 / 255), teacher()])
    pixels = np.arange(32, dtype="uint8").reshape(8, 4)
    inputs = {name: keras.Input((2,), name=name) for name in "ab"}
    two = keras.Model(inputs, teacher()(keras.layers.Concatenate()([*inputs.values()])))
    for what, model, x, layer, message in (
        ("other shapes", teacher(6), rows(8, 6), None, "input shapes"),
        ("other dtypes", integers, pixels, None, "input dtypes"),
        ("other structures", two, {"a": X[:, :2], "b": X[:, 2:]}, None, "arity"),
        ("other heads", teacher(classes=5), X, "hidden", "output shapes"),
    ):
        losses, models = FeatureDistillation("mse", layer, layer), (model, student())
        features = predicted(model, x, layer), predicted(models[1], X, layer)
        args = mean_square(*features), kind, losses, models
        refused = is_refused(message, check_step, *args, x={"teacher": x, "student": X})
        yield f"{what} are refused", refused

    models = two_headed(1), two_headed(2)
    losses = FeatureDistillation({"kind": "mse", "size": "mse"})
    outputs, y = predicted(models[1]), {"kind": Y, "size": X[:, :1]}
    likelihoods = reference.log_softmax(outputs["kind"])[np.arange(8), Y]
    expected = mean_square(outputs["size"], y["size"]) - likelihoods.mean()
    kwargs = {"loss": {"kind": crossentropy(), "size": "mse"}, "of": "student_loss"}
    args = expected, kind, losses, models
    refused = is_refused("mismatch", check_step, *args, y=y, **kwargs)
    yield "several outputs crash", refused


@defect(
    "Files",
    "a loaded distiller cannot `fit`; a student cannot load a distiller's weights",
    "a loaded distiller goes on; a student loads its weights from a distiller's",
)
def test_what_is_saved_can_be_used(kind, tmp_path):
    """`AttributeError` in `fit`, though `compiled`; `ValueError` in `load_weights`."""
    made = distiller(kind, optimizer=keras.optimizers.Adam(0.1))
    checkpoint, saved = (tmp_path / f"{name}.weights.h5" for name in ("epoch", "all"))
    save = keras.callbacks.ModelCheckpoint(str(checkpoint), save_weights_only=True)
    fit(made, callbacks=[save])
    made.save_weights(saved)
    for file in (checkpoint, saved):
        fresh = mlp(4, seed=9)
        refused = is_refused("received 0 variables", fresh.load_weights, file)
        yield f"{file} is refused", refused
        assert refused or equal(fresh.get_weights(), made.student.get_weights())
    made.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    assert loaded.compiled
    fit(made)
    refused = is_refused("has no attribute", fit, loaded)
    yield "a loaded distiller cannot fit", refused
    assert refused or is_close(fit(loaded)["loss"], fit(made)["loss"])


def test_the_documentation_shows_this_table():
    root = FIT.parents[1]
    page = (root / "examples" / "docs" / "migrating.md").read_text(encoding="utf-8")
    assert "\n".join(TABLE) in page
    readme = (root / "README.md").read_text(encoding="utf-8")
    start = readme.index(TABLE[0])
    shown = readme[start : readme.index("\n\n", start)].splitlines()
    assert shown[:2] == TABLE[:2]
    assert len(shown) == 6
    assert set(shown) < set(TABLE)


if __name__ == "__main__":
    print("\n".join(TABLE))
