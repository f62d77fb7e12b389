"""Batches of which some rows have no labels: `x["label_mask"]`."""

import keras
import numpy as np
import pytest
from keras import ops
from small_models import (
    CLASSES,
    copy_of,
    crossentropy,
    labels,
    mlp,
    numbers,
    rows,
    standing_still,
)

import keras_dskd
from keras_dskd import losses

N = 12
X = {"teacher": rows(N, 6, seed=1), "student": rows(N, 4, seed=2)}
Y = labels(N)
MASK = np.array([1, 0, 0, 1, 0, 1, 0, 0, 1, 0, 0, 1], bool)
WEIGHT = np.linspace(0.5, 2.0, N).astype("float32")
# float32 sums of a few numbers in a different order.
CLOSE = {"rel": 1e-5, "abs": 1e-6}

rng = np.random.default_rng(0)
MULTIHOT = rng.integers(0, 2, (N, CLASSES)).astype("float32")
NUMBERS = rng.normal(size=(N, CLASSES)).astype("float32")
ONE_HOT = np.eye(CLASSES, dtype="float32")[Y]
#: Labels of the steps of sequences, as of the pixels of images.
STEPS = rng.integers(0, CLASSES, (N, 5)).astype("int32")


def nothing(y, mask=MASK):
    """Labels whose other rows hold what people write where they have no label."""
    y = y.copy()
    y[~mask] = -1 if np.issubdtype(y.dtype, np.integer) else np.nan
    return y


def masked(x=X, mask=MASK):
    return {**x, "label_mask": mask}


def sequences(mask_zero=False):
    """Steps of 4 numbers; some rows are padded with zeros."""
    x = rng.normal(size=(N, 5, 4)).astype("float32")
    if mask_zero:
        for row in range(N):
            x[row, 5 - row % 3 :] = 0.0
    return {"teacher": x, "student": x}


def step_model(name="student", mask_zero=False):
    inputs = x = keras.Input((5, 4))
    if mask_zero:
        x = keras.layers.Masking()(x)
    x = keras.layers.SimpleRNN(3, return_sequences=True, name="hidden")(x)
    x = keras.layers.Dense(CLASSES, name="logits")(x)
    return keras.Model(inputs, x, name=name)


def distiller(student=None, teacher=None, made_of=None, **kwargs):
    return keras_dskd.Distiller(
        teacher or mlp(6, name="teacher", seed=10),
        student or mlp(4),
        made_of or losses.RegressionTargets(),
        **kwargs,
    )


def mean_of_squares(y_true, y_pred):
    return ops.mean(ops.square(y_true - y_pred), axis=-1)


class Weighted(keras.losses.Loss):
    """A loss of one's own, with a value for each row."""

    def call(self, y_true, y_pred):
        return ops.sum(ops.abs(y_true - y_pred), axis=-1)


binary = keras.losses.BinaryCrossentropy
# Name: compiled loss, labels, kind of model.
COMPILED = {
    "class indices": (crossentropy, Y, "rows"),
    "sum": (lambda: crossentropy(reduction="sum"), Y, "rows"),
    "mean": (lambda: crossentropy(reduction="mean"), Y, "rows"),
    "mean with weights": (
        lambda: crossentropy(reduction="mean_with_sample_weight"),
        Y,
        "rows",
    ),
    "one-hot": (
        lambda: keras.losses.CategoricalCrossentropy(from_logits=True),
        ONE_HOT,
        "rows",
    ),
    "several labels": (lambda: binary(from_logits=True), MULTIHOT, "rows"),
    "a name": (lambda: "mse", NUMBERS, "rows"),
    "divides by labels": (lambda: "mape", NUMBERS, "rows"),
    "a function": (lambda: mean_of_squares, NUMBERS, "rows"),
    "an own class": (Weighted, NUMBERS, "rows"),
    "steps": (crossentropy, STEPS, "steps"),
    "an ignored class": (lambda: crossentropy(ignore_class=1), STEPS, "steps"),
    "steps with padding": (crossentropy, STEPS, "padded"),
}


def program(name):
    """Compiled steps take long to trace on TensorFlow: one for each kind of reader."""
    compiled = (
        "class indices",
        "steps with padding",
        "accuracy",
        "auc",
        "iou of steps",
    )
    on_tensorflow = keras.backend.backend() == "tensorflow"
    return {"run_eagerly": True} if on_tensorflow and name not in compiled else {}


@pytest.mark.parametrize("has_weights", [False, True], ids=["", "weights"])
@pytest.mark.parametrize("name", COMPILED)
def test_the_student_trains_as_on_only_its_labeled_rows(name, has_weights):
    loss, y, kind = COMPILED[name]
    padded = kind == "padded"
    x = X if kind == "rows" else sequences(padded)
    student = mlp(4) if kind == "rows" else step_model(mask_zero=padded)
    teacher = None if kind == "rows" else step_model("teacher")
    alone = copy_of(student)
    weight = WEIGHT if has_weights else None
    if has_weights and kind != "rows":
        weight = np.repeat(WEIGHT[:, None], 5, 1)

    alone.compile(keras.optimizers.SGD(0.1), loss(), **program(name))
    expected = alone.fit(
        x["student"][MASK],
        y[MASK],
        sample_weight=None if weight is None else weight[MASK],
        batch_size=N,
        epochs=2,
        verbose=0,
    ).history["loss"]

    made = distiller(student, teacher, student_loss_weight=1.0)
    made.compile(keras.optimizers.SGD(0.1), loss(), **program(name))
    logs = made.fit(
        masked(x), nothing(y), sample_weight=weight, batch_size=N, epochs=2, verbose=0
    ).history
    assert logs["student_loss"] == pytest.approx(expected, rel=1e-4)
    assert logs["loss"] == pytest.approx(expected, rel=1e-4)
    for one, other in zip(student.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_rows_without_labels_count_in_the_distillation_losses():
    made_of = [
        losses.SoftTargets(2.0),
        losses.ChannelAlignment("hidden", "hidden"),
        losses.ChannelIndependence(None, "hidden", target="self"),
        losses.SpatialUniformity("hidden"),
    ]
    made = distiller(made_of=made_of)
    made.compile(standing_still(), crossentropy())
    all_labels = numbers(made.fit(X, Y, batch_size=N, verbose=0))
    some = numbers(made.fit(masked(), nothing(Y), batch_size=N, verbose=0))
    of_labels = {"student_loss", "loss", "total_loss"}
    for name in set(all_labels) - of_labels:
        assert some[name] == pytest.approx(all_labels[name], **CLOSE)
    alone = copy_of(made.student)
    alone.compile(loss=crossentropy())
    expected = alone.evaluate(X["student"][MASK], Y[MASK], verbose=0)
    assert some["student_loss"] == pytest.approx(expected, **CLOSE)
    total = 0.5 * expected + 0.5 * all_labels["distillation_loss"]
    assert some["loss"] == some["total_loss"] == pytest.approx(total, **CLOSE)


metrics = keras.metrics
# Metric: labels, and the activation that its predictions need.
METRICS = {
    "accuracy": (lambda: "accuracy", Y, None),
    "top": (lambda: metrics.SparseTopKCategoricalAccuracy(2), Y, None),
    "a function": (lambda: mean_of_squares, NUMBERS, None),
    "categorical": (metrics.CategoricalAccuracy, ONE_HOT, None),
    "auc of labels": (
        lambda: metrics.AUC(multi_label=True, num_labels=CLASSES),
        MULTIHOT,
        "sigmoid",
    ),
    "auc": (metrics.AUC, MULTIHOT, "sigmoid"),
    "precision": (metrics.Precision, MULTIHOT, "sigmoid"),
    "recall at precision": (
        lambda: metrics.RecallAtPrecision(0.5),
        MULTIHOT,
        "sigmoid",
    ),
    "f1": (lambda: metrics.F1Score("macro", threshold=0.5), MULTIHOT, "sigmoid"),
    "binary iou": (lambda: metrics.BinaryIoU(threshold=0.5), MULTIHOT, "sigmoid"),
    "mean error": (metrics.MeanAbsoluteError, NUMBERS, None),
    "r2": (metrics.R2Score, NUMBERS, None),
    "iou of steps": (
        lambda: metrics.MeanIoU(CLASSES, sparse_y_pred=False),
        STEPS,
        None,
    ),
    "iou of one-hot": (
        lambda: metrics.OneHotMeanIoU(CLASSES),
        np.eye(CLASSES, dtype="float32")[STEPS],
        None,
    ),
    "accuracy of steps": (metrics.SparseCategoricalAccuracy, STEPS, None),
}

#: Their weights are integers, or weights of all entries, which fit no compiled loss.
COUNT_ENTRIES = (
    metrics.AUC,
    metrics.BinaryIoU,
    metrics.MeanIoU,
    metrics.Precision,
    metrics.RecallAtPrecision,
)


# On JAX, the IoU metrics of Keras ask for 64 bits.
@pytest.mark.filterwarnings("ignore:Explicitly requested dtype int64")
@pytest.mark.parametrize("name", METRICS)
def test_metrics_see_only_the_labeled_rows(name):
    metric, y, activation = METRICS[name]
    of_steps = y.shape[1:2] == (5,)
    x = sequences() if of_steps else X
    student = step_model() if of_steps else mlp(4)
    if activation:
        student = keras.Sequential([student, keras.layers.Activation(activation)])
        student.build((None, 4))

    def result(model, x, y, weight, **fit):
        is_indices = y.dtype == "int32"
        model.compile(
            standing_still(),
            crossentropy() if is_indices else "mse",
            metrics=[metric()],
            weighted_metrics=[metric()],
            **program(name),
        )
        logs = model.fit(x, y, batch_size=N, sample_weight=weight, verbose=0)
        no_metrics = {"loss", "total_loss", "student_loss"}
        history = logs.history
        return [history[key][0] for key in history if key not in no_metrics]

    weight = np.repeat(WEIGHT[:, None], 5, 1) if of_steps else WEIGHT
    if isinstance(metric(), COUNT_ENTRIES):
        weight = None
    of_labeled = None if weight is None else weight[MASK]
    expected = result(copy_of(student), x["student"][MASK], y[MASK], of_labeled)
    teacher = step_model("teacher") if of_steps else None
    made = distiller(student, teacher, student_loss_weight=1.0)
    received = result(made, masked(x), nothing(y), weight)
    assert len(expected) == 2
    assert received == pytest.approx(expected, **CLOSE)


def test_batches_without_a_label_and_with_one():
    """The mean of an epoch gives each labeled row the same weight."""
    mask = np.zeros(N, bool)
    mask[[5, 9, 10]] = True  # None of the first 4 rows, 1 of the next, then 2.
    made = distiller(made_of=losses.SoftTargets(2.0))
    made.compile(standing_still(), crossentropy(), metrics=["accuracy"])
    x = masked(mask=mask)
    logs = numbers(
        made.fit(x, nothing(Y, mask), batch_size=4, shuffle=False, verbose=0)
    )
    alone = copy_of(made.student)
    alone.compile(loss=crossentropy(), metrics=["accuracy"])
    loss, accuracy = alone.evaluate(X["student"][mask], Y[mask], verbose=0)
    assert logs["student_loss"] == pytest.approx(loss, **CLOSE)
    assert logs["accuracy"] == pytest.approx(accuracy, **CLOSE)
    none = {name: array[:4] for name, array in x.items()}
    logs = made.train_on_batch(none, nothing(Y, mask)[:4], return_dict=True)
    assert logs["total_loss"] == pytest.approx(0.5 * logs["soft_targets"], **CLOSE)
    assert logs["student_loss"] == 0


def test_outputs_without_a_last_axis_have_a_value_for_each_row():
    def model(width, name):
        inputs = keras.Input((width,))
        x = keras.layers.Dense(1, kernel_initializer="ones")(inputs)
        return keras.Model(inputs, keras.layers.Reshape(())(x), name=name)

    made = distiller(model(4, "student"), model(6, "teacher"))
    made.compile(standing_still(), "mse")
    y = NUMBERS[:, 0]
    logs = numbers(made.fit(masked(), nothing(y), batch_size=N, verbose=0))
    expected = np.mean((X["student"].sum(1) - y)[MASK] ** 2)
    assert logs["student_loss"] == pytest.approx(expected, **CLOSE)


def test_evaluate_leaves_out_rows_without_labels():
    made = distiller()
    made.compile(standing_still(), "mse", metrics=["mae"])
    expected = made.evaluate(
        X["student"][MASK], NUMBERS[MASK], verbose=0, return_dict=True
    )
    for x in (masked(), {"student": X["student"], "label_mask": MASK}):
        received = made.evaluate(
            x, nothing(NUMBERS), batch_size=5, verbose=0, return_dict=True
        )
        assert received == pytest.approx(expected, **CLOSE)


@pytest.mark.parametrize(
    ("loss", "y", "compiled"),
    [
        (lambda: losses.DecoupledDistillation(), Y, crossentropy),
        (lambda: losses.RegressionTargets(bounded=True), NUMBERS, lambda: "mse"),
    ],
    ids=["decoupled", "bounded"],
)
def test_a_loss_that_reads_labels_leaves_out_rows_without_them(loss, y, compiled):
    made = distiller(made_of=loss(), student_loss_weight=0.0)
    made.compile(standing_still(), compiled())
    has_teacher = np.arange(N) != 3
    given = masked(X | {"teacher_mask": has_teacher})
    received = numbers(made.fit(given, nothing(y), batch_size=N, verbose=0))
    both = MASK & has_teacher
    x = {name: array[both] for name, array in X.items()}
    expected = numbers(made.fit(x, y[both], batch_size=N, verbose=0))
    assert received["distillation_loss"] == pytest.approx(
        expected["distillation_loss"], **CLOSE
    )


def test_outputs_have_their_own_losses_and_metrics():
    def model(name):
        inputs = keras.Input((4,))
        outputs = {
            "kind": keras.layers.Dense(CLASSES, name="kind")(inputs),
            "size": keras.layers.Dense(CLASSES, name="size")(inputs),
        }
        return keras.Model(inputs, outputs, name=name)

    def compiled(model):
        model.compile(
            standing_still(),
            {"kind": crossentropy(), "size": "mse"},
            metrics={"kind": ["accuracy"], "size": ["mae"]},
            loss_weights={"kind": 1.0, "size": 3.0},
        )
        return model

    mask = MASK.copy()
    mask[:5] = False
    y = {"kind": Y, "size": NUMBERS}
    x = {"teacher": X["student"], "student": X["student"]}
    made_of = losses.FitNet("kind", "kind")
    made = compiled(distiller(model("student"), model("teacher"), made_of))
    garbage = {name: nothing(y[name], mask) for name in y}
    received = numbers(
        made.fit(masked(x, mask), garbage, batch_size=4, shuffle=False, verbose=0)
    )
    alone = compiled(copy_of(made.student))
    expected = alone.evaluate(
        X["student"][mask],
        {name: y[name][mask] for name in y},
        verbose=0,
        return_dict=True,
    )
    expected["student_loss"] = expected.pop("loss")
    assert {name: received[name] for name in expected} == pytest.approx(
        expected, **CLOSE
    )


def test_a_loaded_distiller_and_one_compiled_again_leave_them_out(tmp_path):
    made = distiller()
    accuracy = keras.metrics.MeanAbsoluteError("error")
    made.compile(standing_still(), "mse", metrics=[accuracy])
    expected = numbers(made.fit(masked(), nothing(NUMBERS), batch_size=N, verbose=0))
    made.save(tmp_path / "made.keras")
    loaded = keras.saving.load_model(tmp_path / "made.keras")
    made.compile(standing_still(), "mse", metrics=[accuracy])
    for model in (loaded, made):
        logs = numbers(model.fit(masked(), nothing(NUMBERS), batch_size=N, verbose=0))
        assert logs == pytest.approx(expected, **CLOSE)


def test_many_rows_in_half_precision():
    """Sums over more rows than float16 can count."""
    count = 70_000
    x, y = rows(count, 4), rows(count, CLASSES)
    mask = np.arange(count) % 7 == 0
    student = mlp(4, dtype="mixed_float16")
    made = distiller(student, mlp(4, name="teacher"), student_loss_weight=1.0)
    loss = keras.losses.MeanSquaredError(dtype="float16")
    made.compile(standing_still(), loss)
    given = {"teacher": x, "student": x, "label_mask": mask}
    logs = made.evaluate(
        given, nothing(y, mask), batch_size=count, verbose=0, return_dict=True
    )
    expected = np.mean((student.predict(x[mask], verbose=0) - y[mask]) ** 2)
    assert logs["loss"] == pytest.approx(expected, rel=2e-3)


# Errors


@pytest.mark.parametrize(
    "mask", [MASK[:5], np.stack([MASK, MASK], 1), {"a": MASK, "b": MASK}]
)
def test_a_mask_that_does_not_fit_is_refused(mask):
    made = distiller()
    made.compile("sgd", "mse")
    batch = masked(mask=mask)
    with pytest.raises(ValueError, match=r'x\["label_mask"\].* samples'):
        made.compute_loss(batch, NUMBERS, None, training=True)


def whole_batch(y_true, y_pred):
    return ops.mean(ops.square(y_true - y_pred))


class OwnCall(keras.losses.Loss):
    def __call__(self, y_true, y_pred, sample_weight=None):
        return whole_batch(y_true, y_pred)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (whole_batch, "'whole_batch' must have one value per row.*shape \\(\\)"),
        (OwnCall(), "has its own `__call__`"),
        (keras.losses.MeanSquaredError(reduction="none"), "needs a reduction"),
    ],
)
def test_a_loss_of_the_whole_batch_is_refused(loss, message):
    made = distiller()
    made.compile("sgd", loss)
    with pytest.raises(ValueError, match=message):
        made.fit(masked(), NUMBERS, verbose=0)


class NoWeights(keras.metrics.Metric):
    def update_state(self, y_true, y_pred):
        """Takes no weights."""

    def result(self):
        return 0.0


@pytest.mark.parametrize("metric", [whole_batch, NoWeights(name="none")])
def test_a_metric_without_weights_is_refused(metric):
    made = distiller()
    made.compile("sgd", "mse", metrics=[metric])
    with pytest.raises(ValueError, match="metric '.*' cannot leave out the rows"):
        made.fit(masked(), NUMBERS, verbose=0)


def test_an_own_compute_loss_must_use_the_compiled_loss():
    class Own(keras.Model):
        uses_compiled = True

        def compute_loss(self, x, y, y_pred, sample_weight, training=True):
            if self.uses_compiled:
                return 2.0 * super().compute_loss(x, y, y_pred, sample_weight)
            return ops.mean(ops.square(y_pred - y))

    base = mlp(4)
    student = Own(base.inputs, base.outputs)
    made = distiller(student)
    made.compile(standing_still(), "mse")
    received = numbers(made.fit(masked(), nothing(NUMBERS), batch_size=N, verbose=0))
    prediction = student.predict(X["student"][MASK], verbose=0)
    expected = 2.0 * np.mean((prediction - NUMBERS[MASK]) ** 2)
    assert received["student_loss"] == pytest.approx(expected, **CLOSE)
    student.uses_compiled = False
    with pytest.raises(ValueError, match="does not use the compiled loss"):
        made.compute_loss(masked(), NUMBERS, None, training=True)
