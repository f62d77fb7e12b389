"""The training step: its total, its passes, and what it must not change."""

import functools

import keras
import numpy as np
import pytest
import reference
from keras import ops
from small_models import (
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

pytestmark = pytest.mark.every_backend

BACKEND = keras.backend.backend()

# A few float32 sums, compared with another program or NumPy.
CLOSE = {"rel": 1e-5, "abs": 1e-6}
# The same through a few training steps.
TRAINED = {"rtol": 1e-4, "atol": 1e-5}

X = {"teacher": rows(8, 6, seed=1), "student": rows(8, 4, seed=2)}
Y = labels(8)

FeatureDistillation = keras.distillation.FeatureDistillation
SoftTargets = keras_dskd.losses.SoftTargets


def teacher_mlp(**kwargs):
    return mlp(6, name="teacher", seed=10, **kwargs)


def distiller(losses=None, teacher=None, student=None, compile_kwargs=None, **kwargs):
    made = keras_dskd.Distiller(
        teacher or teacher_mlp(),
        student or mlp(4),
        losses or FeatureDistillation(),
        **kwargs,
    )
    compile_kwargs = {
        "optimizer": standing_still(),
        "loss": crossentropy(),
        **(compile_kwargs or {}),
    }
    made.compile(**compile_kwargs)
    return made


def fit(made, x=None, y=Y, **kwargs):
    """The values of the last epoch; by default of one step on all samples."""
    kwargs = {"batch_size": 8, "verbose": 0, **kwargs}
    return numbers(made.fit(X if x is None else x, y, **kwargs))


def numpy_crossentropy(y, logits):
    return -reference.log_softmax(logits)[np.arange(len(y)), y].mean()


def assert_same_weights(received, expected):
    for one, other in zip(received, expected, strict=True):
        np.testing.assert_array_equal(one, other)


# The total


@pytest.mark.parametrize("student_loss_weight", [0.5, 0.2])
def test_the_total_is_the_weighted_sum_of_the_losses_in_numpy(student_loss_weight):
    made = distiller(
        [SoftTargets(3.0), FeatureDistillation("mse", "hidden", "hidden")],
        distillation_loss_weights=[0.7, 2.0],
        student_loss_weight=student_loss_weight,
    )
    teacher, student = made.teacher, made.student
    teacher_logits = teacher.predict(X["teacher"], verbose=0)
    student_logits = student.predict(X["student"], verbose=0)
    hidden = [
        np.tanh(x @ kernel + bias)
        for x, (kernel, bias) in (
            (X["teacher"], teacher.get_layer("hidden").get_weights()),
            (X["student"], student.get_layer("hidden").get_weights()),
        )
    ]
    soft = reference.soft_targets(teacher_logits, student_logits, 3.0)
    feature = np.mean((hidden[0] - hidden[1]) ** 2)
    supervised = numpy_crossentropy(Y, student_logits)
    distillation = 0.7 * soft + 2.0 * feature
    w = student_loss_weight
    total = w * supervised + (1 - w) * distillation

    assert fit(made) == pytest.approx(
        {
            "loss": total,
            "total_loss": total,
            "student_loss": supervised,
            "distillation_loss": distillation,
            "soft_targets": soft,
            "feature_distillation": feature,
        },
        **CLOSE,
    )


class BothTargets(keras.losses.Loss):
    """`0.5 crossentropy + 0.5 mean square`, from concatenated labels and logits.

    With it, plain Keras trains a student as a distiller must.
    """

    def call(self, y_true, y_pred):
        supervised = ops.sparse_categorical_crossentropy(
            ops.cast(y_true[:, 0], "int32"), y_pred, from_logits=True
        )
        distilled = ops.mean(ops.square(y_true[:, 1:] - y_pred), axis=-1)
        return 0.5 * supervised + 0.5 * distilled


def plainly_trained(teacher, student, optimizer, x=X, y=Y, **fit_kwargs):
    """The student's weights after training in plain Keras."""
    student = copy_of(student)
    student.compile(optimizer, BothTargets())
    logits = teacher.predict(x["teacher"], verbose=0)
    targets = np.concatenate([y[:, None], logits], axis=1).astype("float32")
    student.fit(x["student"], targets, shuffle=False, verbose=0, **fit_kwargs)
    return student.get_weights()


PROGRAMS = [
    pytest.param({"jit_compile": False}, id="not compiled by XLA"),
    pytest.param({"run_eagerly": True}, id="eager"),
]
if BACKEND != "torch":
    # torch.compile takes half a minute and has its own test.
    PROGRAMS.append(pytest.param({"jit_compile": True}, id="compiled by XLA"))
    PROGRAMS.append(
        pytest.param({"steps_per_execution": 2}, id="two steps an execution")
    )


@pytest.mark.parametrize("program", PROGRAMS)
def test_training_equals_plain_keras_on_the_same_total(program):
    made = distiller(
        compile_kwargs={"optimizer": keras.optimizers.Adam(0.1), **program}
    )
    expected = plainly_trained(
        made.teacher,
        made.student,
        keras.optimizers.Adam(0.1),
        batch_size=4,
        epochs=2,
    )
    fit(made, batch_size=4, epochs=2, shuffle=False)
    for received, weight in zip(made.student.get_weights(), expected, strict=True):
        np.testing.assert_allclose(received, weight, **TRAINED)


@pytest.mark.skipif(BACKEND != "torch", reason="torch.compile is of the torch backend")
# torch's compiler reads `.grad` of every tensor that crosses a graph break.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
# On a GPU, torch recommends TF32.
@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores")
def test_training_with_torch_compile_equals_plain_keras(monkeypatch):
    torch = pytest.importorskip("torch")
    # All but the last stage of the compiler, which writes kernels for half a minute.
    compiled = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", compiled)
    made = distiller(
        compile_kwargs={"optimizer": keras.optimizers.SGD(0.1), "jit_compile": True}
    )
    expected = plainly_trained(
        made.teacher, made.student, keras.optimizers.SGD(0.1), batch_size=4
    )
    fit(made, batch_size=4, shuffle=False)
    for received, weight in zip(made.student.get_weights(), expected, strict=True):
        np.testing.assert_allclose(received, weight, **TRAINED)


@pytest.mark.skipif(BACKEND == "torch", reason="Keras refuses it on torch")
def test_steps_per_execution_count_steps():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.0, 1.0])
    made = distiller(
        distillation_loss_weights=[schedule],
        compile_kwargs={"steps_per_execution": 2},
    )
    difference = made.teacher.predict(X["teacher"], verbose=0) - made.student.predict(
        X["student"], verbose=0
    )
    # Only steps 2 and 3 of four count.
    expected = np.mean(difference[4:] ** 2) / 2
    received = fit(made, batch_size=2, shuffle=False)["distillation_loss"]
    assert received == pytest.approx(expected, **CLOSE)


def test_accumulated_gradients_of_two_halves_equal_those_of_the_batch():
    made = distiller(
        [SoftTargets(2.0), FeatureDistillation("mse", "hidden", "hidden")],
        compile_kwargs={
            "optimizer": keras.optimizers.SGD(0.5, gradient_accumulation_steps=2)
        },
    )
    whole = distiller(
        [SoftTargets(2.0), FeatureDistillation("mse", "hidden", "hidden")],
        teacher=made.teacher,
        student=copy_of(made.student),
        compile_kwargs={"optimizer": keras.optimizers.SGD(0.5)},
    )
    before = made.student.get_weights()
    fit(made, batch_size=4, shuffle=False)
    fit(whole)
    for received, expected, start in zip(
        made.student.get_weights(), whole.student.get_weights(), before, strict=True
    ):
        np.testing.assert_allclose(received, expected, **TRAINED)
        assert not np.allclose(expected, start, atol=1e-4)


# The student's own loss


def regularized_student():
    inputs = keras.Input((4,))
    x = keras.layers.Dense(
        5, "relu", name="hidden", kernel_regularizer=keras.regularizers.L2(0.1)
    )(inputs)
    x = AddsLoss(0.3)(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))


@pytest.mark.parametrize("weights", [None, "sample_weight", "class_weight"])
def test_the_student_loss_equals_that_of_the_students_own_fit(weights):
    """With sample or class weights, `add_loss` and a regularizer."""
    kwargs = {
        None: {},
        "sample_weight": {"sample_weight": np.linspace(0.0, 2.0, 8)},
        "class_weight": {"class_weight": {0: 0.2, 1: 1.0, 2: 5.0}},
    }[weights]
    made = distiller(student=regularized_student())
    received = fit(made, **kwargs)
    plain = copy_of(made.student)
    plain.compile(standing_still(), crossentropy())
    expected = numbers(plain.fit(X["student"], Y, batch_size=8, verbose=0, **kwargs))[
        "loss"
    ]
    assert received["student_loss"] == pytest.approx(expected, **CLOSE)
    total = 0.5 * expected + 0.5 * received["distillation_loss"]
    assert received["loss"] == pytest.approx(total, **CLOSE)


def test_add_loss_and_regularizer_count_fully():
    """Compared with NumPy, in case Keras's `fit` and ours omit the same loss."""
    made = distiller(student=regularized_student())
    kernel, bias, *_ = made.student.get_weights()
    hidden = np.maximum(X["student"] @ kernel + bias, 0.0)
    logits = made.student.predict(X["student"], verbose=0)
    expected = (
        numpy_crossentropy(Y, logits)
        + 0.3 * np.mean(hidden**2)
        + 0.1 * np.sum(kernel**2)
    )
    assert fit(made)["student_loss"] == pytest.approx(expected, **CLOSE)


def test_a_student_may_train_on_its_add_loss_without_labels():
    made = distiller(student=regularized_student(), compile_kwargs={"loss": None})
    kernel, bias, *_ = made.student.get_weights()
    hidden = np.maximum(X["student"] @ kernel + bias, 0.0)
    expected = 0.3 * np.mean(hidden**2) + 0.1 * np.sum(kernel**2)
    assert fit(made, y=None)["student_loss"] == pytest.approx(expected, **CLOSE)


def test_the_teachers_regularizers_and_add_loss_do_not_count():
    """In the first step, in later steps, and in evaluation."""

    def teacher(**kwargs):
        inputs = keras.Input((6,))
        x = keras.layers.Dense(5, "tanh", name="hidden", **kwargs)(inputs)
        if kwargs:
            x = AddsLoss(100.0)(x)
        return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))

    plain = teacher()
    heavy = teacher(
        kernel_regularizer=keras.regularizers.L2(100.0),
        activity_regularizer=keras.regularizers.L2(100.0),
    )
    heavy.set_weights(plain.get_weights())
    student = mlp(4)
    with_plain = distiller(teacher=plain, student=copy_of(student))
    with_heavy = distiller(teacher=heavy, student=copy_of(student))
    evaluation = {"validation_data": (X["student"], Y)}
    for _ in range(2):
        expected = fit(with_plain, batch_size=4, epochs=2, **evaluation)
        received = fit(with_heavy, batch_size=4, epochs=2, **evaluation)
        assert received == pytest.approx(expected, **CLOSE)
    expected = with_plain.evaluate(X["student"], Y, verbose=0)
    assert with_heavy.evaluate(X["student"], Y, verbose=0) == pytest.approx(expected)


def test_the_teachers_add_loss_does_not_replace_a_missing_student_loss():
    inputs = keras.Input((6,))
    teacher = keras.Model(inputs, AddsLoss()(keras.layers.Dense(3)(inputs)))
    made = distiller(teacher=teacher, compile_kwargs={"loss": None})
    with pytest.raises(ValueError, match="no loss for the student. Pass `loss`"):
        fit(made, epochs=2)


def test_a_projectors_regularizer_counts_only_in_the_total():
    projector = keras.layers.Dense(
        5, use_bias=False, kernel_regularizer=keras.regularizers.L2(0.5)
    )
    made = distiller(
        FeatureDistillation("mse", "hidden", "hidden"),
        student=mlp(4, hidden=2),
        projectors={"hidden": projector},
    )
    received = fit(made)
    logits = made.student.predict(X["student"], verbose=0)
    (kernel,) = projector.get_weights()
    student_loss = numpy_crossentropy(Y, logits)
    assert received["student_loss"] == pytest.approx(student_loss, **CLOSE)
    total = 0.5 * student_loss + 0.5 * received["distillation_loss"]
    total += 0.5 * np.sum(kernel**2)
    assert received["loss"] == pytest.approx(total, **CLOSE)
    # Evaluation does not include the projector.
    evaluated = made.evaluate(X["student"], Y, verbose=0, return_dict=True)
    assert evaluated["loss"] == pytest.approx(student_loss, **CLOSE)


def test_the_loss_uses_the_features_of_the_given_prediction():
    """Not those of the latest pass, if a custom loop runs several."""
    losses = [keras_dskd.losses.SpatialUniformity("hidden")]
    made = distiller(losses, student=mlp(4, hidden=3))
    first = {role: x[:4] for role, x in X.items()}
    second = {role: x[4:8] for role, x in X.items()}
    expected = made.compute_loss(first, Y[:4], made(first, training=True))
    prediction = made(first, training=True)
    made(second, training=True)
    received = made.compute_loss(first, Y[:4], prediction)
    assert ops.convert_to_numpy(received) == pytest.approx(
        ops.convert_to_numpy(expected), **CLOSE
    )


# Passes


def test_each_model_runs_once_per_step_for_any_layers():
    in_teacher, in_student = Counting(name="count"), Counting(name="count")
    teacher = cnn(3, name="teacher", extra=[in_teacher])
    student = cnn(1, extra=[in_student])
    made = distiller(
        [
            SoftTargets(),
            FeatureDistillation("mse", "relu0", "relu0"),
            FeatureDistillation("mse", "gap", "gap"),
            keras_dskd.losses.SpatialUniformity("gap"),
        ],
        teacher=teacher,
        student=student,
    )
    x = {"teacher": images(8, 3), "student": images(8)}
    fit(made, x, batch_size=4, epochs=3)
    assert in_teacher.count() == 6
    assert in_student.count() == 6


def test_evaluation_and_prediction_never_run_the_teacher():
    counting = Counting()
    made = distiller(
        FeatureDistillation("mse", "gap", "gap"),
        teacher=cnn(3, name="teacher", extra=[counting]),
        student=cnn(1),
    )
    x = {"teacher": images(8, 3), "student": images(8)}
    made.evaluate(x["student"], Y, verbose=0)
    made.predict(x, verbose=0)
    made(x["student"])
    fit(made, x, validation_data=(x, Y))
    made.evaluate(x, Y, verbose=0)
    made.test_on_batch(x["student"], Y)
    assert counting.count() == 1


def test_batch_statistics_update_once_per_step_and_not_in_evaluation():
    """Compared with the formula `m + (1 - momentum) (mean - m)`."""
    student = cnn(1)
    made = distiller(
        [FeatureDistillation("mse", "relu0", "relu0"), SoftTargets()],
        teacher=cnn(3, name="teacher"),
        student=student,
    )
    x = {"teacher": images(8, 3), "student": images(8)}
    convolved = keras.Model(student.inputs, student.get_layer("conv0").output)
    mean = convolved.predict(x["student"], verbose=0).mean(axis=(0, 1, 2))
    fit(made, x, epochs=2, validation_data=({"student": images(8) + 5.0}, Y))
    made.evaluate(images(8) + 5.0, Y, verbose=0)
    moving = ops.convert_to_numpy(student.get_layer("bn0").moving_mean)
    after_two = 0.01 * mean + 0.99 * 0.01 * mean
    np.testing.assert_allclose(moving, after_two, rtol=1e-4, atol=1e-7)  # float32


def test_evaluation_and_prediction_equal_those_of_the_student():
    student = cnn(1, extra=[keras.layers.Dropout(0.9), AddsLoss(0.1)])
    made = distiller(
        FeatureDistillation("mse", "gap", "gap"),
        teacher=cnn(3, name="teacher"),
        student=student,
        compile_kwargs={
            "metrics": ["accuracy"],
            "optimizer": keras.optimizers.Adam(0.05),
        },
    )
    x = {"teacher": images(8, 3), "student": images(8)}
    history = made.fit(x, Y, verbose=0, validation_data=(x["student"], Y)).history
    student.compile(loss=crossentropy(), metrics=["accuracy"])
    expected = student.evaluate(x["student"], Y, verbose=0, return_dict=True)
    for given in (x, x["student"], {"student": x["student"]}):
        received = made.evaluate(given, Y, verbose=0, return_dict=True)
        assert received["loss"] == pytest.approx(expected["loss"], **CLOSE)
        assert received["total_loss"] == received["loss"]
        assert "student_loss" not in received
        assert received["accuracy"] == expected["accuracy"]
        prediction = made.predict(given, verbose=0)
        np.testing.assert_array_equal(
            prediction, student.predict(x["student"], verbose=0)
        )
    assert history["val_loss"][0] == pytest.approx(expected["loss"], **CLOSE)
    assert history["val_accuracy"][0] == expected["accuracy"]


def test_evaluation_before_any_training_works():
    """Projectors and layers of losses have no weights yet, and get no wrong ones."""
    made = distiller(
        FeatureDistillation("mse", "gap", "relu0"),
        teacher=cnn(3, widths=(6,), name="teacher"),
        student=cnn(1),
        projectors={
            "relu0": keras.Sequential(
                [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(6)]
            )
        },
    )
    x = {"teacher": images(8, 3), "student": images(8)}
    expected = numpy_crossentropy(Y, made.student.predict(x["student"], verbose=0))
    received = made.evaluate(x["student"], Y, verbose=0, return_dict=True)
    assert received["loss"] == pytest.approx(expected, **CLOSE)
    made.predict(x["student"], verbose=0)
    assert np.isfinite(fit(made, x)["loss"])


def test_evaluation_before_any_training_works_with_layers_in_a_loss():
    made = distiller(MatchesThroughLayer(5), teacher=teacher_mlp(), student=mlp(4))
    expected = numpy_crossentropy(Y, made.student.predict(X["student"], verbose=0))
    received = made.evaluate(X["student"], Y, verbose=0, return_dict=True)
    assert received["loss"] == pytest.approx(expected, **CLOSE)
    assert np.isfinite(fit(made)["loss"])


# The teacher is not changed


def test_the_teacher_is_bit_for_bit_unchanged_by_fit():
    teacher = cnn(3, name="teacher", extra=[keras.layers.Dropout(0.5)])
    teacher.get_layer("conv0").trainable = False
    x = {"teacher": images(8, 3), "student": images(8)}
    teacher.compile("adam", crossentropy())
    teacher.fit(x["teacher"], Y, verbose=0)
    before = teacher.get_weights()
    flags = [layer.trainable for layer in teacher.layers]
    made = distiller(
        [FeatureDistillation("mse", "gap", "gap"), SoftTargets()],
        teacher=teacher,
        student=cnn(1),
        compile_kwargs={"optimizer": keras.optimizers.AdamW(0.1, weight_decay=0.1)},
    )
    made.trainable = True
    fit(made, x, epochs=2, validation_data=(x, Y))
    assert_same_weights(teacher.get_weights(), before)
    assert [layer.trainable for layer in teacher.layers] == flags
    assert teacher.trainable

    teacher.fit(x["teacher"], Y, verbose=0)
    changed = [
        not np.array_equal(one, other)
        for one, other in zip(teacher.get_weights(), before, strict=True)
    ]
    # All except the frozen convolution's kernel and bias.
    assert changed == [False, False] + [True] * (len(before) - 2)


def test_freezing_the_distiller_freezes_only_the_student():
    made = distiller()
    made.trainable = False
    assert made.trainable_variables == []
    assert made.teacher.trainable_variables != []
    made.trainable = True
    assert len(made.trainable_variables) == 4


def test_the_teachers_variables_are_part_of_the_steps_state():
    made = distiller()
    for variables in (made.non_trainable_variables, made.non_trainable_weights):
        ids = {id(variable) for variable in variables}
        assert ids >= {id(variable) for variable in made.teacher.variables}
    for variables in (made.trainable_variables, made.trainable_weights):
        assert {id(variable) for variable in variables} == {
            id(variable) for variable in made.student.trainable_variables
        }


@pytest.mark.skipif(BACKEND != "jax", reason="reads a JAX program")
def test_the_teacher_is_not_a_constant_of_the_compiled_step():
    import jax

    def largest_constant(jaxpr):
        """The largest constant of a program and of the programs that it calls."""
        sizes = [np.size(constant) for constant in getattr(jaxpr, "consts", ())]
        inner = getattr(jaxpr, "jaxpr", jaxpr)
        for equation in inner.eqns:
            for parameter in jax.tree_util.tree_leaves(
                list(equation.params.values()),
                is_leaf=lambda leaf: hasattr(leaf, "eqns"),
            ):
                if hasattr(parameter, "eqns"):
                    sizes.append(largest_constant(parameter))
        return max(sizes, default=0)

    teacher = mlp(6, hidden=1000, name="teacher")
    made = distiller(teacher=teacher)
    fit(made)
    state = made._get_jax_state(
        trainable_variables=True,
        non_trainable_variables=True,
        optimizer_variables=True,
        metrics_variables=True,
    )
    program = jax.make_jaxpr(made.train_step)(state, (X, Y))
    assert largest_constant(program) < 100

    # The search finds a constant, also in a nested program.
    kernel = teacher.get_layer("hidden").kernel.value
    control = jax.make_jaxpr(jax.jit(lambda x: x @ kernel))(X["teacher"])
    assert largest_constant(control) == 6000


def test_a_backbone_shared_by_both_models_stays_trainable():
    inputs = keras.Input((4,))
    x = keras.layers.Dense(5, name="stem")(inputs)
    backbone = keras.Model(inputs, keras.layers.BatchNormalization()(x), name="shared")

    def with_head(name):
        inputs = keras.Input((4,))
        return keras.Model(inputs, keras.layers.Dense(3)(backbone(inputs)), name=name)

    teacher, student = with_head("teacher"), with_head("student")
    shared, head = backbone.get_weights(), teacher.layers[-1].get_weights()
    made = distiller(
        FeatureDistillation("mae", "stem", "stem"),
        teacher=teacher,
        student=student,
        compile_kwargs={"optimizer": keras.optimizers.SGD(0.5)},
    )
    fit(made, X["student"])
    assert_same_weights(teacher.layers[-1].get_weights(), head)
    for before, after in zip(shared, backbone.get_weights(), strict=True):
        assert not np.array_equal(before, after)
    assert backbone.trainable


# Half precision


@pytest.fixture(params=["mixed_float16", "mixed_bfloat16"])
def mixed_precision(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


class Watching(keras.distillation.DistillationLoss):
    """Mean square of features; records the dtypes that it receives."""

    def __init__(self):
        self.dtypes = set()

    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        loss = ops.mean(ops.square(teacher_outputs - student_outputs))
        for tensor in (teacher_outputs, student_outputs, loss):
            self.dtypes.add(keras.backend.standardize_dtype(tensor.dtype))
        return loss


def test_losses_are_float32_and_finite_in_half_precision(mixed_precision):
    """Squares of features around 1000 overflow float16."""
    teacher = cnn(3, name="teacher", extra=[keras.layers.Rescaling(1e4, name="big")])
    watching = Watching()
    made = distiller(
        [
            watching,
            FeatureDistillation("mse", "big", "gap"),
            keras_dskd.losses.ChannelIndependence("big", "gap"),
            keras_dskd.losses.SpatialUniformity("relu0", rows="flattened"),
        ],
        distillation_loss_weights=[1e-3, 1e-6, 1.0, 1.0],
        teacher=teacher,
        student=cnn(1),
        compile_kwargs={"optimizer": keras.optimizers.Adam(1e-2)},
    )
    before = made.student.get_weights()
    x = {"teacher": images(8, 3), "student": images(8)}
    # The first steps only reduce the loss scale until the gradients are finite.
    values = fit(made, x, epochs=8)
    big = keras.Model(teacher.inputs, teacher.get_layer("big").output)
    assert np.max(big.predict(x["teacher"], verbose=0)) > 300  # its square overflows
    assert values["feature_distillation"] > 1e4
    assert all(np.isfinite(value) for value in values.values())
    assert watching.dtypes == {"float32"}
    after = made.student.get_weights()
    assert all(np.all(np.isfinite(weight)) for weight in after)
    assert not np.array_equal(before[0], after[0])
    scales = isinstance(made.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scales == (mixed_precision == "mixed_float16")


def test_half_precision_training_matches_float32_within_its_precision(mixed_precision):
    losses = [FeatureDistillation("mse", "hidden", "hidden"), SoftTargets(2.0)]
    half = distiller(losses, compile_kwargs={"optimizer": keras.optimizers.SGD(0.1)})
    keras.config.set_dtype_policy("float32")
    single = distiller(losses, compile_kwargs={"optimizer": keras.optimizers.SGD(0.1)})
    expected, received = fit(single, epochs=3), fit(half, epochs=3)
    # bfloat16 has 8 bits: the relative error of features is 1/256.
    assert received == pytest.approx(expected, rel=0.03, abs=0.01)


# Inputs and outputs of different shapes


def two_headed(width, structure, name, classes=3):
    inputs = keras.Input((width,))
    x = keras.layers.Dense(5, "tanh", name="hidden")(inputs)
    kind = keras.layers.Dense(classes, name="kind")(x)
    size = keras.layers.Dense(1, name="size")(x)
    outputs = {"kind": kind, "size": size} if structure is dict else [kind, size]
    return keras.Model(inputs, outputs, name=name)


@pytest.mark.parametrize("structure", [dict, list])
def test_several_outputs_are_trained_and_distilled(structure):
    losses = {"kind": crossentropy(), "size": keras.losses.MeanSquaredError()}
    heights = rows(8, 1, seed=5)
    y = {"kind": Y, "size": heights}
    if structure is list:
        losses, y = list(losses.values()), list(y.values())
    made = distiller(
        Sums(),
        teacher=two_headed(6, structure, "teacher"),
        student=two_headed(4, structure, "student"),
        compile_kwargs={"loss": losses, "loss_weights": None},
    )
    received = fit(made, y=y)
    student = made.student.predict(X["student"], verbose=0)
    teacher = made.teacher.predict(X["teacher"], verbose=0)
    if structure is dict:
        student, teacher = (list(outputs.values()) for outputs in (student, teacher))
    supervised = numpy_crossentropy(Y, student[0]) + np.mean(
        (student[1] - heights) ** 2
    )
    distilled = sum(
        np.mean((t - s) ** 2) for t, s in zip(teacher, student, strict=True)
    )
    assert received["student_loss"] == pytest.approx(supervised, **CLOSE)
    assert received["sums"] == pytest.approx(distilled, **CLOSE)


class Sums(keras.distillation.DistillationLoss):
    """The sum of the mean squares of all outputs."""

    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        squares = keras.tree.map_structure(
            lambda t, s: ops.mean(ops.square(t - s)), teacher_outputs, student_outputs
        )
        return sum(keras.tree.flatten(squares))


def test_soft_targets_read_one_of_several_outputs_by_its_layer():
    made = distiller(
        SoftTargets(2.0, "kind", "kind"),
        teacher=two_headed(6, dict, "teacher"),
        student=two_headed(4, dict, "student"),
        compile_kwargs={"loss": {"kind": crossentropy(), "size": "mse"}},
    )
    received = fit(made, y={"kind": Y, "size": rows(8, 1)})["soft_targets"]
    expected = reference.soft_targets(
        made.teacher.predict(X["teacher"], verbose=0)["kind"],
        made.student.predict(X["student"], verbose=0)["kind"],
        2.0,
    )
    assert received == pytest.approx(expected, **CLOSE)


def test_a_multi_output_teacher_guides_a_student_with_one_output():
    made = distiller(
        SoftTargets(2.0, teacher_layer_name="kind"),
        teacher=two_headed(6, list, "teacher"),
    )
    received = fit(made)["soft_targets"]
    expected = reference.soft_targets(
        made.teacher.predict(X["teacher"], verbose=0)[0],
        made.student.predict(X["student"], verbose=0),
        2.0,
    )
    assert received == pytest.approx(expected, **CLOSE)


def test_each_modality_may_be_any_structure_that_its_model_accepts():
    a, b = keras.Input((6,), name="a"), keras.Input((2,), name="b")
    both = keras.layers.Concatenate()([a, b])
    teacher = keras.Model({"a": a, "b": b}, keras.layers.Dense(3)(both))
    left, right = keras.Input((4,)), keras.Input((3,))
    both = keras.layers.Concatenate()([left, right])
    student = keras.Model([left, right], keras.layers.Dense(3)(both))
    made = distiller(teacher=teacher, student=student)
    x = {
        "teacher": {"a": X["teacher"], "b": rows(8, 2)},
        "student": [X["student"], rows(8, 3)],
    }
    received = fit(made, x, validation_data=(x, Y))
    difference = teacher.predict(x["teacher"], verbose=0) - student.predict(
        x["student"], verbose=0
    )
    expected = np.mean(difference**2)
    assert received["feature_distillation"] == pytest.approx(expected, **CLOSE)
    assert made.predict(x["student"], verbose=0).shape == (8, 3)


def test_modalities_may_differ_in_rank_size_and_dtype():
    inputs = keras.Input((4, 4, 3), dtype="uint8")
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    teacher = keras.Model(inputs, keras.layers.Dense(3)(x))
    pixels = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3)).astype("uint8")
    made = distiller(teacher=teacher)
    received = fit(made, {"teacher": pixels, "student": X["student"]})
    kernel, bias = teacher.get_weights()
    teacher_logits = (pixels / 255).reshape(8, -1) @ kernel + bias
    difference = teacher_logits - made.student.predict(X["student"], verbose=0)
    expected = np.mean(difference**2)
    assert received["feature_distillation"] == pytest.approx(expected, **CLOSE)


def test_one_input_goes_to_both_models():
    made = distiller(teacher=mlp(4, name="teacher", seed=10))
    received = fit(made, X["student"])["feature_distillation"]
    difference = made.teacher.predict(X["student"], verbose=0) - made.student.predict(
        X["student"], verbose=0
    )
    assert received == pytest.approx(np.mean(difference**2), **CLOSE)


def test_a_student_without_weights_is_built_and_its_layers_are_read():
    student = Subclassed()
    made = distiller(
        [FeatureDistillation("mse", "hidden", "hidden"), SoftTargets()],
        student=student,
        compile_kwargs={"optimizer": keras.optimizers.SGD(0.1)},
    )
    values = fit(made, epochs=2)
    assert np.isfinite(values["loss"])
    assert len(made.trainable_variables) == len(student.trainable_variables) == 4
    first = fit(made)["feature_distillation"]
    assert fit(made)["feature_distillation"] != first


# Projectors, and layers inside losses


def test_a_projector_is_applied_and_trained_but_not_part_of_the_student():
    projector = keras.layers.Dense(5, name="projector")
    made = distiller(
        [
            FeatureDistillation("mse", "hidden", "hidden"),
            FeatureDistillation("mae", "hidden", "hidden"),
        ],
        student=mlp(4, hidden=2),
        projectors={"hidden": projector},
    )
    received = fit(made)
    kernel, bias, *_ = made.student.get_weights()
    projected_kernel, projected_bias = projector.get_weights()
    student = np.tanh(X["student"] @ kernel + bias) @ projected_kernel + projected_bias
    kernel, bias, *_ = made.teacher.get_weights()
    difference = np.tanh(X["teacher"] @ kernel + bias) - student
    squares, distances = np.mean(difference**2), np.mean(np.abs(difference))
    assert received["feature_distillation"] == pytest.approx(squares, **CLOSE)
    assert received["feature_distillation_1"] == pytest.approx(distances, **CLOSE)

    assert len(made.student.weights) == 4
    made.compile(keras.optimizers.SGD(0.1), crossentropy())
    fit(made)
    assert not np.array_equal(projector.get_weights()[0], projected_kernel)


class MatchesThroughLayer(keras.distillation.DistillationLoss):
    """A user's loss with a layer that must be trained."""

    def __init__(self, width):
        self.teacher_layer_name = self.student_layer_name = "hidden"
        self.layer = keras.layers.Dense(width)

    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        matched = self.layer(student_outputs)
        return ops.mean(ops.square(teacher_outputs - matched))


def test_layers_inside_a_users_loss_are_trained():
    loss = MatchesThroughLayer(5)
    made = distiller(
        loss,
        student=mlp(4, hidden=2),
        student_loss_weight=0.01,
        compile_kwargs={"optimizer": keras.optimizers.SGD(0.5)},
    )
    first = fit(made)["matches_through_layer"]
    kernel = loss.layer.get_weights()[0]
    second = fit(made, epochs=5)["matches_through_layer"]
    assert second < first
    assert not np.array_equal(loss.layer.get_weights()[0], kernel)
    assert len(made.trainable_variables) == 6
    assert {id(variable) for variable in loss.layer.trainable_variables} <= {
        id(variable) for variable in made.trainable_variables
    }


# Other losses


def test_keras_losses_equal_their_values_on_plain_predictions():
    """Also with layer names in nested models, which Keras's distiller rejects."""

    def nested(width, name):
        inputs = keras.Input((width,))
        inner = mlp(width, name="backbone")
        return keras.Model(inputs, keras.layers.Dense(3)(inner(inputs)), name=name)

    logits = keras.distillation.LogitsDistillation(
        2.0, keras.losses.CategoricalCrossentropy(from_logits=True)
    )
    feature = FeatureDistillation("mae", "backbone/hidden", "backbone/hidden")
    made = distiller(
        [logits, feature], teacher=nested(6, "teacher"), student=nested(4, "student")
    )
    received = fit(made)
    teacher, student = (
        model.predict(X[model.name], verbose=0)
        for model in (made.teacher, made.student)
    )
    log_softmax = reference.log_softmax(student / 2.0)
    expected = -np.mean(np.sum(teacher / 2.0 * log_softmax, axis=-1))
    assert received["logits_distillation"] == pytest.approx(expected, **CLOSE)
    hidden = [
        keras.Model(inner.inputs, inner.get_layer("hidden").output).predict(
            X[model.name], verbose=0
        )
        for model in (made.teacher, made.student)
        for inner in [model.get_layer("backbone")]
    ]
    expected = np.mean(np.abs(hidden[0] - hidden[1]))
    assert received["feature_distillation"] == pytest.approx(expected, **CLOSE)


def test_a_distiller_replaces_that_of_keras():
    """The same arguments give the same numbers, with one input for both models."""
    teacher, student = mlp(4, name="teacher", seed=10), mlp(4)
    arguments = {
        "distillation_losses": [
            FeatureDistillation("mse", "hidden", "hidden"),
            keras.distillation.LogitsDistillation(3.0, "mse"),
        ],
        "distillation_loss_weights": [0.25, 0.75],
        "student_loss_weight": 0.3,
    }
    received = {}
    for kind in (keras_dskd.Distiller, keras.distillation.Distiller):
        made = kind(teacher=teacher, student=student, **arguments)
        made.compile(standing_still(), crossentropy())
        received[kind] = fit(made, X["student"])
    for name, value in received[keras.distillation.Distiller].items():
        assert received[keras_dskd.Distiller][name] == pytest.approx(value, **CLOSE)


# Metrics


def test_each_loss_has_a_metric_with_a_number_if_names_repeat():
    made = distiller(
        [
            SoftTargets(),
            SoftTargets(2.0),
            FeatureDistillation(),
            Sums(),
            SoftTargets(1),
        ],
        compile_kwargs={"metrics": ["accuracy"]},
    )
    assert set(fit(made)) == {
        "loss",
        "total_loss",
        "student_loss",
        "distillation_loss",
        "accuracy",
        "soft_targets",
        "soft_targets_1",
        "soft_targets_2",
        "feature_distillation",
        "sums",
    }


def test_a_loss_named_like_a_numbered_one_keeps_its_own_metric():
    class Named(Sums):
        name = "soft_targets_1"

    values = fit(distiller([SoftTargets(), Named(), SoftTargets(2.0)]))
    assert len([name for name in values if name.startswith("soft_targets")]) == 3


def test_a_loss_named_like_a_metric_of_the_distiller_keeps_its_own_metric():
    class Named(Sums):
        name = "student_loss"

    made = distiller(Named())
    logits = made.student.predict(X["student"], verbose=0)
    values = fit(made)
    assert len(values) == 5
    assert values["student_loss"] == pytest.approx(
        numpy_crossentropy(Y, logits), **CLOSE
    )


def test_every_epoch_reports_the_losses_with_evaluations_between():
    made = distiller(SoftTargets())
    made.evaluate(X["student"], Y, verbose=0)
    history = made.fit(
        X, Y, epochs=3, batch_size=4, validation_data=(X["student"], Y), verbose=0
    ).history
    for name in ("soft_targets", "distillation_loss", "student_loss", "loss"):
        assert len(history[name]) == 3
        # No weights change, so a loss that is missing or not reset is visible.
        assert history[name] == pytest.approx([history[name][0]] * 3, **CLOSE)
    assert "val_soft_targets" not in history
    assert "val_distillation_loss" not in history
    assert len(history["val_loss"]) == 3


def test_train_on_batch_reports_the_values_of_fit():
    made = distiller(SoftTargets())
    expected = fit(made)
    received = made.train_on_batch(X, Y, return_dict=True)
    made.reset_metrics()
    received = made.train_on_batch(X, Y, return_dict=True)
    assert {name: float(value) for name, value in received.items()} == pytest.approx(
        expected, **CLOSE
    )


# The student's weight at 0 and 1


def test_without_labels_the_student_learns_only_from_the_teacher():
    for loss in (None, crossentropy()):
        made = distiller(
            student_loss_weight=0.0,
            compile_kwargs={"loss": loss, "optimizer": keras.optimizers.SGD(0.5)},
        )
        first = fit(made, y=None)
        assert first["loss"] == pytest.approx(first["feature_distillation"], **CLOSE)
        # Values that were not computed are absent, not 0.
        assert "student_loss" not in first
        assert fit(made, y=None, epochs=5)["loss"] < first["loss"]


def test_without_the_teachers_input_the_student_learns_alone():
    made = distiller(
        student_loss_weight=1.0,
        student=regularized_student(),
        compile_kwargs={"optimizer": keras.optimizers.Adam(0.1)},
    )
    plain = copy_of(made.student)
    plain.compile(keras.optimizers.Adam(0.1), crossentropy())
    kwargs = {"batch_size": 4, "epochs": 2, "shuffle": False, "verbose": 0}
    history = plain.fit(X["student"], Y, **kwargs)
    received = made.fit(X["student"], Y, **kwargs)
    assert received.history["loss"] == pytest.approx(history.history["loss"], **CLOSE)
    for one, other in zip(made.student.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, **TRAINED)


def test_training_pass_holds_prediction_and_features():
    losses = [
        keras_dskd.losses.ChannelAlignment("hidden", "hidden"),
        keras_dskd.losses.SoftTargets(),
    ]
    made = distiller(losses, projectors={"hidden": keras.layers.Dense(5)})
    forward = made(X, training=True)
    student, teacher = made.student, made.teacher
    hidden = keras.Model(student.input, student.get_layer("hidden").output)
    expected = made.projectors["hidden"](hidden(X["student"]))
    for received, wanted in (
        (forward.prediction, student(X["student"])),
        (forward.student["hidden"], expected),
        (forward.teacher["(output)"], teacher(X["teacher"])),
    ):
        np.testing.assert_allclose(
            ops.convert_to_numpy(received), ops.convert_to_numpy(wanted), rtol=1e-5
        )
    assert forward.teacher.keys() == forward.student.keys() == {"hidden", "(output)"}


def test_loss_of_a_prediction_without_its_features_raises():
    made = distiller([keras_dskd.losses.SpatialUniformity("hidden")])
    prediction = made.student(X["student"])
    with pytest.raises(ValueError, match=r"y_pred=distiller\(x, training=True"):
        made.compute_loss(X, Y, prediction)


def test_each_epoch_logs_the_same_names_with_validation_between():
    """The validation step is compiled after the training step, and once."""
    made = distiller([keras_dskd.losses.SpatialUniformity("hidden")])
    validation = (X["student"], Y)
    names = []

    class Names(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            names.append((set(logs), set(self.model.get_metrics_result())))

    made.fit(X, Y, epochs=2, validation_data=validation, callbacks=[Names()], verbose=0)
    trained = {"loss", "total_loss", "student_loss", "distillation_loss"}
    trained |= {"spatial_uniformity"}
    evaluated = {"loss", "total_loss"}
    logged = trained | {f"val_{name}" for name in evaluated}
    assert names == [(logged, evaluated)] * 2


def test_a_distiller_as_student_raises():
    inner = distiller([keras_dskd.losses.SoftTargets()])
    with pytest.raises(ValueError, match=r"Pass its student: `distiller\.student`"):
        keras_dskd.Distiller(
            mlp(6, name="other"), inner, [keras_dskd.losses.SoftTargets()]
        )


def test_a_plain_input_trains_if_no_loss_reads_the_teacher():
    """Even if the teacher takes inputs of another shape."""
    made = distiller([keras_dskd.losses.SpatialUniformity("hidden")])
    paired, plain = (fit(made, x) for x in (X, X["student"]))
    assert plain == pytest.approx(paired)
