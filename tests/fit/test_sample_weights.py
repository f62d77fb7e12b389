"""Samples without the teacher's modality, and samples with weights."""

import keras
import numpy as np
import pytest
import reference
from keras import ops
from small_models import (
    copy_of,
    crossentropy,
    labels,
    mlp,
    numbers,
    rows,
    standing_still,
)

import keras_dskd
from keras_dskd.distiller.output_weights import weights_for

FeatureDistillation = keras.distillation.FeatureDistillation
LogitsDistillation = keras.distillation.LogitsDistillation
losses = keras_dskd.losses

N = 8
X = {"teacher": rows(N, 6, seed=1), "student": rows(N, 4, seed=2)}
Y = labels(N)
MASK = np.array([1, 0, 1, 1, 0, 1, 1, 0], bool)
WEIGHT = np.linspace(0.5, 2.0, N).astype("float32")
# float32 sums of a few numbers in a different order.
CLOSE = {"rel": 1e-5, "abs": 1e-6}


def distiller(made_of, optimizer=None, **kwargs):
    made = keras_dskd.Distiller(
        mlp(6, name="teacher", seed=10), mlp(4), made_of, **kwargs
    )
    made.compile(optimizer or standing_still(), crossentropy())
    return made


def fit(made, x, y=Y, **kwargs):
    """The values of one step on all samples."""
    return numbers(made.fit(x, y, batch_size=N, verbose=0, **kwargs))


def features(made, layer_name):
    """The layer's features in each model, as float64."""
    return [
        keras.Model(model.inputs, model.get_layer(layer_name).output)
        .predict(X[model.name], verbose=0)
        .astype("float64")
        for model in (made.teacher, made.student)
    ]


def holes():
    """Pairs without a teacher for some samples, where its input is NaN."""
    teacher = X["teacher"].copy()
    teacher[~MASK] = np.nan
    return {"teacher": teacher, "student": X["student"], "teacher_mask": MASK}


def per_sample_losses():
    return [
        losses.SoftTargets(2.0),
        FeatureDistillation("mse", "hidden", "hidden"),
        FeatureDistillation(keras.losses.CosineSimilarity(), "hidden", "hidden"),
        LogitsDistillation(2.0, keras.losses.KLDivergence()),
    ]


def per_sample_references(made):
    """The value of each of these losses per sample, in NumPy."""
    (teacher, student), logits = features(made, "hidden"), features(made, "logits")
    soft = [reference.soft_targets(t, s, 2.0) for t, s in zip(*logits, strict=True)]
    cosine = (reference.normalize(teacher) * reference.normalize(student)).sum(-1)
    return {
        "soft_targets": np.array(soft),
        "feature_distillation": ((teacher - student) ** 2).mean(-1),
        "feature_distillation_1": -cosine,
        "logits_distillation": np.array(soft),
    }


# Missing teachers


def test_a_per_sample_loss_is_the_mean_over_samples_with_a_teacher():
    made = distiller(per_sample_losses())
    expected = per_sample_references(made)
    received = fit(made, holes())
    for name, values in expected.items():
        assert received[name] == pytest.approx(values[MASK].mean(), **CLOSE)


def test_training_equals_that_on_only_the_samples_with_a_teacher():
    """With the student's own loss, which uses all samples, switched off."""

    def trained(x, y):
        made = distiller(
            [*per_sample_losses(), losses.ChannelAlignment("hidden", "hidden")],
            keras.optimizers.SGD(0.1),
            student_loss_weight=0.0,
        )
        made.fit(x, y, batch_size=N, epochs=3, verbose=0)
        return made.student.get_weights()

    full = {name: X[name][MASK] for name in X}
    for one, other in zip(trained(holes(), Y), trained(full, Y[MASK]), strict=True):
        # Three float32 steps.
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_the_students_own_loss_uses_samples_without_a_teacher():
    made = distiller(per_sample_losses())
    expected = fit(made, X)["student_loss"]
    received = fit(made, holes())
    assert received["student_loss"] == pytest.approx(expected, **CLOSE)
    total = 0.5 * received["student_loss"] + 0.5 * received["distillation_loss"]
    assert received["loss"] == pytest.approx(total, **CLOSE)


def test_batch_statistics_with_the_teacher_use_only_samples_that_have_one():
    made = distiller(
        [
            losses.ChannelAlignment("hidden", "hidden"),
            losses.ChannelIndependence("hidden", "hidden"),
        ]
    )
    teacher, student = (feature[MASK] for feature in features(made, "hidden"))
    received = fit(made, holes())
    assert received["channel_alignment"] == pytest.approx(
        reference.channel_alignment(teacher, student), **CLOSE
    )
    assert received["channel_independence"] == pytest.approx(
        reference.guided_channel_independence(teacher, student), **CLOSE
    )


def test_batch_statistics_of_only_the_student_use_all_samples():
    made = distiller(
        [
            losses.ChannelIndependence(None, "hidden", target="self"),
            losses.SpatialUniformity("hidden"),
        ]
    )
    _, student = features(made, "hidden")
    received = fit(made, holes())
    assert received["channel_independence"] == pytest.approx(
        reference.off_diagonal_energy(student), **CLOSE
    )
    assert received["spatial_uniformity"] == pytest.approx(
        reference.spatial_uniformity(student), **CLOSE
    )


@pytest.mark.parametrize("there", [0, 1])
def test_without_enough_teachers_losses_are_zero_and_weights_stay_finite(there):
    made = distiller(
        [
            losses.ChannelAlignment("hidden", "hidden"),
            losses.ChannelIndependence("hidden", "hidden"),
            *([] if there else per_sample_losses()),
        ],
        keras.optimizers.SGD(0.1),
    )
    x = {**X, "teacher": np.full_like(X["teacher"], np.nan)}
    x["teacher"][:there] = 1.0
    received = fit(made, {**x, "teacher_mask": np.arange(N) < there})
    assert received["distillation_loss"] == 0.0
    assert received["student_loss"] > 0.0
    assert all(np.isfinite(weight).all() for weight in made.student.get_weights())


@pytest.mark.parametrize(
    "mask",
    [MASK, MASK.astype("float32"), MASK.astype("int32")[:, None]],
    ids=["bool", "float", "a column of integers"],
)
def test_a_mask_may_be_any_array_with_one_number_per_sample(mask):
    made = distiller(per_sample_losses())
    expected = fit(made, holes())
    assert fit(made, {**holes(), "teacher_mask": mask}) == pytest.approx(expected)


def test_a_mask_that_is_all_true_changes_nothing():
    made = distiller(
        [
            *per_sample_losses(),
            losses.ChannelAlignment("hidden", "hidden"),
            losses.ChannelIndependence("hidden", "hidden"),
        ]
    )
    received = fit(made, {**X, "teacher_mask": np.ones(N, bool)})
    assert received == pytest.approx(fit(made, X), **CLOSE)


def test_batches_with_and_without_missing_teachers_are_averaged_by_size():
    """Two batches of four and a smaller one of two."""
    made = distiller([losses.SoftTargets(2.0)])
    values = per_sample_references(made)["soft_targets"]
    part = {name: array[:6] for name, array in holes().items()}
    received = numbers(made.fit(part, Y[:6], batch_size=4, shuffle=False, verbose=0))[
        "soft_targets"
    ]
    batches = [values[:4][MASK[:4]].mean(), values[4:6][MASK[4:6]].mean()]
    assert received == pytest.approx(np.average(batches, weights=[4, 2]), **CLOSE)


def test_cached_features_accept_a_mask():
    made = distiller(per_sample_losses())
    expected = fit(made, holes())
    cached = {
        "student": X["student"],
        "teacher_features": made.cache_teacher(holes()["teacher"]),
        "teacher_mask": MASK,
    }
    assert fit(made, cached) == pytest.approx(expected, **CLOSE)


def test_evaluation_and_prediction_ignore_a_mask():
    made = distiller(per_sample_losses())
    expected = made.evaluate(X["student"], Y, verbose=0)
    assert made.evaluate(holes(), Y, verbose=0) == pytest.approx(expected)
    assert made.predict(holes(), verbose=0).shape == (N, 3)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((N, 2)), r"an array of shape \(n,\).* Received: shape \[\(8, 2\)\]"),
        ({"a": MASK, "b": MASK}, r"an array of shape \(n,\).* Received: shape"),
    ],
    ids=["two numbers a sample", "two arrays"],
)
def test_a_mask_of_another_shape_raises(mask, message):
    with pytest.raises(ValueError, match=message):
        fit(distiller(per_sample_losses()), {**X, "teacher_mask": mask})


def test_a_mask_of_another_length_raises():
    made = distiller(per_sample_losses())
    with pytest.raises(ValueError, match='"teacher_mask".* holds 5 samples.* 8'):
        made.compute_loss({**X, "teacher_mask": MASK[:5]}, Y)


# Weights


def test_sample_weights_apply_to_every_per_sample_loss():
    made = distiller(per_sample_losses())
    expected = per_sample_references(made)
    received = fit(made, X, sample_weight=WEIGHT)
    for name, values in expected.items():
        assert received[name] == pytest.approx((WEIGHT * values).mean(), **CLOSE)


def test_class_weights_are_sample_weights():
    made = distiller(per_sample_losses())
    weight = {0: 0.5, 1: 2.0, 2: 1.0}
    by_sample = np.array([weight[label] for label in Y], "float32")
    expected = fit(made, X, sample_weight=by_sample)
    assert fit(made, X, class_weight=weight) == pytest.approx(expected, **CLOSE)


def test_sample_weights_apply_among_samples_with_a_teacher():
    made = distiller(per_sample_losses())
    expected = per_sample_references(made)
    received = fit(made, holes(), sample_weight=WEIGHT)
    for name, values in expected.items():
        mean = (WEIGHT * values)[MASK].mean()
        assert received[name] == pytest.approx(mean, **CLOSE)


def test_weights_of_one_change_nothing():
    made = distiller(per_sample_losses())
    received = fit(made, X, sample_weight=np.ones(N))
    assert received == pytest.approx(fit(made, X), **CLOSE)


def test_weights_do_not_change_batch_statistics():
    made = distiller([losses.ChannelAlignment("hidden", "hidden")])
    received = fit(made, X, sample_weight=WEIGHT)["channel_alignment"]
    assert received == pytest.approx(fit(made, X)["channel_alignment"], **CLOSE)


@pytest.mark.parametrize("columns", [(), (1,)])
def test_weights_may_be_one_dimensional_or_a_column(columns):
    made = distiller([losses.SoftTargets(2.0)])
    values = per_sample_references(made)["soft_targets"]
    weight = np.reshape(WEIGHT, (N, *columns))
    mean = ops.convert_to_numpy(
        keras_dskd.ops.weighted_mean(
            values.astype("float32"), weights_for(made.loss_terms[0], weight)
        )
    )
    assert mean == pytest.approx((WEIGHT * values).mean(), **CLOSE)


def test_weights_of_time_steps_apply_per_step_or_by_their_mean():
    values = rows(4, 3)
    weight = np.abs(rows(4, 3, seed=1))
    mean = keras_dskd.ops.weighted_mean
    expected = np.mean(values * weight)
    assert float(mean(values, weight)) == pytest.approx(expected, **CLOSE)
    expected = np.mean(values[:, 0] * weight.mean(1))
    assert float(mean(values[:, 0], weight)) == pytest.approx(expected, **CLOSE)
    expected = np.mean(values * weight[:, :1])
    assert float(mean(values, weight[:, 0])) == pytest.approx(expected, **CLOSE)


# Weights of several outputs

OTHER = np.linspace(3.0, 1.0, N).astype("float32")


def of_two_outputs(made_of):
    """A distiller of models with the outputs "kind" and "size"."""

    def two(name, width, seed):
        logits = mlp(width, name=name, seed=seed)
        size = keras.layers.Dense(
            1, name="size", kernel_initializer=keras.initializers.GlorotUniform(seed)
        )(logits.get_layer("hidden").output)
        return keras.Model(
            logits.input, {"kind": logits.output, "size": size}, name=name
        )

    made = keras_dskd.Distiller(two("teacher", 6, 10), two("student", 4, 0), made_of)
    made.compile(standing_still(), {"kind": crossentropy(), "size": "mse"})
    return made


def losses_of_each():
    """Losses of the first output, of the second, and of a hidden layer."""
    return [
        losses.SoftTargets(2.0, "logits", "logits"),
        losses.RegressionTargets("size", "size"),
        FeatureDistillation("mse", "hidden", "hidden"),
    ]


def values_of_each(made):
    """The value of each loss per sample, in NumPy."""
    logits, sizes, hidden = (
        features(made, name) for name in ("logits", "size", "hidden")
    )
    return {
        "soft_targets": np.array(
            [reference.soft_targets(t, s, 2.0) for t, s in zip(*logits, strict=True)]
        ),
        "regression_targets": ((sizes[0] - sizes[1]) ** 2).mean(-1),
        "feature_distillation": ((hidden[0] - hidden[1]) ** 2).mean(-1),
    }


Y_OF_TWO = {"kind": Y, "size": rows(N, 1, seed=3)}


@pytest.mark.parametrize("form", ["arrays", "batches"])
def test_one_array_weights_every_output_and_loss(form):
    """As plain Keras applies it to the loss of each output."""
    made = of_two_outputs(losses_of_each())
    plain = copy_of(made.student)
    plain.compile(standing_still(), {"kind": crossentropy(), "size": "mse"})

    def trained(model, x):
        if form == "arrays":
            return fit(model, x, Y_OF_TWO, sample_weight=WEIGHT)
        batches = (batch for batch in [(x, Y_OF_TWO, WEIGHT)])
        return numbers(model.fit(batches, steps_per_epoch=1, shuffle=False, verbose=0))

    received = trained(made, X)
    for name, values in values_of_each(made).items():
        assert received[name] == pytest.approx((WEIGHT * values).mean(), **CLOSE)
    expected = trained(plain, X["student"])["loss"]
    assert received["student_loss"] == pytest.approx(expected, **CLOSE)


def test_with_weights_per_output_a_loss_gets_those_of_its_output():
    made = of_two_outputs(losses_of_each())
    values = values_of_each(made)
    expected = {
        "soft_targets": WEIGHT * values["soft_targets"],
        "regression_targets": OTHER * values["regression_targets"],
        "feature_distillation": (WEIGHT + OTHER) / 2 * values["feature_distillation"],
    }
    weights = {"kind": WEIGHT, "size": OTHER}
    received = fit(made, X, Y_OF_TWO, sample_weight=weights)
    for name, per_sample in expected.items():
        assert received[name] == pytest.approx(per_sample.mean(), **CLOSE)


def test_an_output_without_weights_counts_as_one():
    one, other, hidden = of_two_outputs(losses_of_each()).loss_terms
    student = of_two_outputs(losses_of_each()).student
    given = {"kind": WEIGHT, "size": None}
    assert weights_for(other, given, student) is None
    for term, expected in ((one, WEIGHT), (hidden, (WEIGHT + 1) / 2)):
        received = ops.convert_to_numpy(weights_for(term, given, student))
        np.testing.assert_allclose(received, expected, rtol=1e-6)


def test_weights_of_steps_of_several_outputs_count_by_their_mean():
    *_, hidden = of_two_outputs(losses_of_each()).loss_terms
    steps = np.abs(rows(N, 3))
    received = ops.convert_to_numpy(weights_for(hidden, [WEIGHT, steps]))
    np.testing.assert_allclose(received, (WEIGHT + steps.mean(1)) / 2, rtol=1e-6)


# Losses defined by users


class PerSample(keras.distillation.DistillationLoss):
    """Weighted mean over samples of the squared distance."""

    def compute_loss(self, teacher_outputs, student_outputs, sample_weight=None):
        squares = ops.mean(ops.square(teacher_outputs - student_outputs), axis=-1)
        return keras_dskd.ops.weighted_mean(squares, sample_weight)


class OfTheBatch(keras.distillation.DistillationLoss):
    """The fraction of samples with a teacher."""

    def compute_loss(self, teacher_outputs, student_outputs, teacher_mask=None):
        if teacher_mask is None:
            return ops.ones(())
        return ops.mean(ops.cast(teacher_mask, "float32"))


class Unaware(keras.distillation.DistillationLoss):
    """Accepts the arguments of Keras's own distiller."""

    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        assert not kwargs
        return ops.mean(ops.square(teacher_outputs - student_outputs))


def test_a_users_loss_gets_the_arguments_that_it_names():
    made = distiller([PerSample(), OfTheBatch()])
    teacher, student = features(made, "logits")
    squares = ((teacher - student) ** 2).mean(-1)
    received = fit(made, holes(), sample_weight=WEIGHT)
    mean = (WEIGHT * squares)[MASK].mean()
    assert received["per_sample"] == pytest.approx(mean, **CLOSE)
    assert received["of_the_batch"] == pytest.approx(MASK.mean(), **CLOSE)


def test_a_users_loss_that_cannot_leave_samples_out_raises():
    with pytest.raises(ValueError, match="Unaware cannot leave out .* `sample_weight`"):
        fit(distiller(Unaware()), holes())


# NumPy 2 warns of Keras's torch tensors, and `pytest.warns` records that too.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_warning_names_a_users_loss_that_accepts_no_weights():
    made = distiller(Unaware())
    with pytest.warns(UserWarning, match="`sample_weight` does not reach Unaware"):
        received = fit(made, X, sample_weight=WEIGHT)
    assert received["unaware"] == pytest.approx(fit(made, X)["unaware"], **CLOSE)


def relation(teacher, student):
    """A function of the whole batch, not of each sample."""
    difference = ops.matmul(teacher.T, teacher) - ops.matmul(student.T, student)
    return ops.mean(ops.square(difference))


def test_a_function_of_the_batch_in_a_keras_loss_raises_with_a_mask():
    with pytest.raises(ValueError, match="FeatureDistillation cannot leave out"):
        fit(distiller(FeatureDistillation(relation)), holes())


def test_a_keras_loss_that_sums_over_samples_raises_with_weights():
    loss = FeatureDistillation(keras.losses.MeanSquaredError(reduction="sum"))
    with pytest.raises(ValueError, match='Received: a loss with reduction="sum"'):
        fit(distiller(loss), X, sample_weight=WEIGHT)
