"""Errors say what was received and what to do."""

import keras
import numpy as np
import pytest
from keras import ops
from small_models import Subclassed, crossentropy, labels, mlp, rows, standing_still

import keras_dskd
from keras_dskd.losses import (
    ChannelAlignment,
    ChannelIndependence,
    SoftTargets,
    SpatialUniformity,
)

FeatureDistillation = keras.distillation.FeatureDistillation

X = {"teacher": rows(8, 6, seed=1), "student": rows(8, 4, seed=2)}
Y = labels(8)


def distiller(losses=None, teacher=None, student=None, **kwargs):
    return keras_dskd.Distiller(
        teacher or mlp(6, name="teacher", seed=10),
        student or mlp(4),
        losses or SoftTargets(),
        **kwargs,
    )


def compiled(*args, **kwargs):
    made = distiller(*args, **kwargs)
    made.compile(standing_still(), crossentropy())
    return made


def fit(made, x=None, y=Y, **kwargs):
    return made.fit(X if x is None else x, y, verbose=0, **kwargs)


# Models


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_an_argument_that_is_not_a_model_raises(role):
    layer = keras.layers.Dense(3)
    expected = f"`{role}` must be a keras.Model. Received: .*Dense.* of type Dense"
    with pytest.raises(ValueError, match=expected):
        distiller(**{role: layer})


def test_one_model_as_teacher_and_student_raises():
    model = mlp(4)
    expected = "are the same object, 'student'. .* copy it: keras.models.clone_model"
    with pytest.raises(ValueError, match=expected):
        distiller(teacher=model, student=model)


def test_a_teacher_without_weights_raises():
    made = compiled(teacher=Subclassed(name="teacher"))
    expected = "teacher 'teacher' has no weights yet. Train it or load its weights"
    with pytest.raises(ValueError, match=expected):
        fit(made)
    with pytest.raises(ValueError, match=expected):
        made.cache_teacher(X["teacher"])


def test_fit_without_compile_raises():
    with pytest.raises(ValueError, match=r"call `compile\(\)` before"):
        fit(distiller())


def test_a_student_without_a_loss_raises():
    made = distiller()
    made.compile("sgd")
    expected = "no loss for the student. Pass `loss` to `compile`, or use student_loss"
    with pytest.raises(ValueError, match=expected):
        fit(made)


# Losses and layers


@pytest.mark.parametrize("losses", [None, [], ()])
def test_no_losses_raise(losses):
    expected = "`distillation_losses` must hold at least one loss, for instance"
    with pytest.raises(ValueError, match=expected):
        keras_dskd.Distiller(mlp(6), mlp(4), losses)


@pytest.mark.parametrize(
    "loss",
    ["mse", keras.losses.MeanSquaredError(), SoftTargets],
    ids=["name", "loss of labels", "class"],
)
def test_an_argument_that_is_not_a_distillation_loss_raises(loss):
    expected = (
        "must be an instance of `keras.distillation.DistillationLoss`.*Received: "
    )
    with pytest.raises(ValueError, match=expected):
        distiller([loss])


def test_an_unknown_layer_raises_at_construction():
    expected = 'Tap "hiden" not found in model "student". Did you mean "hidden"'
    with pytest.raises(ValueError, match=expected):
        distiller(FeatureDistillation("mse", "hidden", "hiden"))
    with pytest.raises(ValueError, match='not found in model "teacher"'):
        distiller(ChannelAlignment("hiden", "hidden"))


def test_an_ambiguous_layer_raises_at_construction():
    def twice(width, name):
        inputs = x = keras.Input((width,))
        for part in ("left", "right"):
            first = keras.Input((x.shape[-1],))
            dense = keras.layers.Dense(3, name="dense")(first)
            x = keras.Model(first, dense, name=part)(x)
        return keras.Model(inputs, x, name=name)

    expected = 'ambiguous in model "student".*Use a path: "left/dense", "right/dense"'
    with pytest.raises(ValueError, match=expected):
        distiller(SpatialUniformity("dense"), student=twice(4, "student"))


def test_a_softmax_teacher_with_soft_targets_raises_at_construction():
    inputs = keras.Input((6,))
    teacher = keras.Model(inputs, keras.layers.Dense(3, "softmax")(inputs), name="t")
    expected = r"the teacher 't' ends in a softmax. Use SoftTargets\(teacher_from_log"
    with pytest.raises(ValueError, match=expected):
        distiller(teacher=teacher)
    values = fit(compiled(SoftTargets(teacher_from_logits=False), teacher=teacher))
    assert np.isfinite(values.history["soft_targets"][0])


def test_a_single_logit_with_soft_targets_raises():
    made = distiller(teacher=mlp(6, classes=1), student=mlp(4, classes=1))
    with pytest.raises(ValueError, match="Use keras_dskd.losses.BinarySoftTargets"):
        made.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    made.compile("sgd", "cosine_similarity")
    expected = "distributions over at least 2 classes.*use .*BinarySoftTargets"
    with pytest.raises(ValueError, match=expected):
        fit(made, y=(Y > 0).astype("float32")[:, None])


def test_different_numbers_of_classes_raise():
    expected = r"must have the same shape \(n, ..., classes\).*5\).*3\).*on features"
    with pytest.raises(ValueError, match=expected):
        fit(compiled(teacher=mlp(6, classes=5)))


@pytest.mark.parametrize(
    "loss",
    [ChannelIndependence("hidden", "hidden"), ChannelAlignment("hidden", "hidden")],
    ids=["independence", "alignment"],
)
def test_different_widths_raise_and_suggest_a_projector(loss):
    expected = (
        "5 teacher channels and 2 student channels. Give the student's feature a "
        r"projector: Distiller\(..., projectors=\{student_layer_name: "
        r"keras.layers.Dense\(5\)"
    )
    with pytest.raises(ValueError, match=expected):
        fit(compiled(loss, student=mlp(4, hidden=2)))


def test_widths_that_keras_losses_would_broadcast_raise():
    """Width 1 against width 5, which Keras's distiller accepts silently."""
    made = compiled(
        FeatureDistillation("mse", "hidden", "hidden"), student=mlp(4, hidden=1)
    )
    expected = r"must have the same shape.*5\) and \(.*1\).*Give .* a projector"
    with pytest.raises(ValueError, match=expected):
        fit(made)


def test_a_loss_that_is_not_a_scalar_raises():
    class PerSample(keras.distillation.DistillationLoss):
        def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
            return ops.mean(ops.square(teacher_outputs - student_outputs), axis=-1)

    with pytest.raises(ValueError, match=r"must be a scalar. Received from PerSample"):
        fit(compiled(PerSample()))


# Projectors


def test_a_projector_for_a_layer_that_no_loss_reads_raises():
    expected = (
        r"No loss reads the student's layer 'logits', which has a projector. "
        r"The losses read: \['hidden'\]"
    )
    with pytest.raises(ValueError, match=expected):
        distiller(
            ChannelAlignment("hidden", "hidden"),
            projectors={"logits": keras.layers.Dense(5)},
        )


def test_a_projector_that_is_not_a_layer_raises():
    expected = "A projector must be a keras.layers.Layer. Received for 'hidden': 5"
    with pytest.raises(ValueError, match=expected):
        distiller(ChannelAlignment("hidden", "hidden"), projectors={"hidden": 5})


# Weights


@pytest.mark.parametrize(
    "loss_weights, expected",
    [
        ([1.0], r"each of the 2 distillation losses. Received 1: \[1.0\]"),
        (0.5, r"each of the 2 distillation losses. Received 1: \[0.5\]"),
        ([1.0, 2.0, 3.0], "each of the 2 distillation losses. Received 3"),
        ([1.0, -0.1], r"`distillation_loss_weights\[1\]` must be a number >= 0.*-0.1"),
        ([float("nan"), 1.0], r"weights\[0\]` must be a number >= 0. Received: .*nan"),
        ([1.0, float("inf")], r"weights\[1\]` must be a number >= 0. Received: .*inf"),
        ([1.0, "2"], r"weights\[1\]` must be a number >= 0. Received: .*'2'"),
        ([1.0, True], r"weights\[1\]` must be a number >= 0. Received: .*True"),
    ],
    ids=str,
)
def test_wrong_weights_raise(loss_weights, expected):
    with pytest.raises(ValueError, match=expected):
        distiller(
            [SoftTargets(), FeatureDistillation()],
            distillation_loss_weights=loss_weights,
        )


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan"), None, "0.5"], ids=str)
def test_a_student_loss_weight_out_of_range_raises(weight):
    expected = "`student_loss_weight` must be a number between 0 and 1. Received: "
    with pytest.raises(ValueError, match=expected):
        distiller(student_loss_weight=weight)


# Data


def test_swapped_modalities_raise():
    x = {"teacher": X["student"], "student": X["teacher"]}
    expected = (
        r"does not fit the student 'student'. Expected shape: \(None, 4\). Received: "
        r'x.shape=\(\w+, 6\).*fit the other model, \'teacher\': are "teacher" and '
        '"student" swapped'
    )
    with pytest.raises(ValueError, match=expected):
        fit(compiled(), x)


def test_a_missing_student_modality_raises():
    with pytest.raises(ValueError, match=r'needs the key "student".*\[\'teacher\'\]'):
        fit(compiled(), {"teacher": X["teacher"]})


def test_a_missing_teacher_modality_raises():
    expected = r'x\["teacher"\] is missing. Pass x=\{"teacher": ..., "student": ...\}'
    with pytest.raises(ValueError, match=expected):
        fit(compiled(), {"student": X["student"]})


def test_only_the_students_input_raises_in_fit():
    """A plain array goes to both models, and the teacher expects another shape."""
    with pytest.raises(ValueError, match="does not fit the teacher 'teacher'"):
        fit(compiled(), X["student"])


def test_an_unknown_key_raises():
    with pytest.raises(ValueError, match=r"unknown keys: \['optical'\]"):
        fit(compiled(), {**X, "optical": X["teacher"]})


def test_missing_labels_raise():
    expected = "Labels are missing: y=None. Pass `y`, or use student_loss_weight=0"
    with pytest.raises(ValueError, match=expected):
        fit(compiled(), y=None)


def test_missing_labels_raise_in_evaluation():
    made = compiled(student_loss_weight=0.0)
    with pytest.raises(ValueError, match="Labels are missing: y=None. Pass `y`"):
        made.evaluate(X["student"], verbose=0)


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_a_wrong_width_raises(role):
    expected = f"does not fit the {role} '{role}'. Expected shape: .*, 9\\)"
    with pytest.raises(ValueError, match=expected):
        fit(compiled(), {**X, role: rows(8, 9)})


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_a_wrong_rank_raises(role):
    expected = f"does not fit the {role} '{role}'. Expected shape: .*, 2, 3\\)"
    with pytest.raises(ValueError, match=expected):
        fit(compiled(), {**X, role: np.zeros((8, 2, 3), "float32")})


def test_modalities_of_different_lengths_raise():
    with pytest.raises(ValueError, match="(?i)sizes|cardinality|same number"):
        fit(compiled(), {**X, "teacher": rows(7, 6)})


@pytest.mark.parametrize(
    "loss",
    [
        ChannelIndependence("hidden", "hidden"),
        ChannelIndependence(None, "hidden", target="self"),
        ChannelAlignment("hidden", "hidden"),
        SpatialUniformity("hidden"),
    ],
    ids=["independence", "own independence", "alignment", "uniformity"],
)
def test_a_batch_of_one_raises_if_the_batch_size_is_known(loss):
    # A compiled TensorFlow program does not know its batch size.
    made = distiller(loss)
    made.compile(standing_still(), crossentropy(), run_eagerly=True)
    expected = r"at least 2 rows. Received: \w+.shape=\(1, 5\). Use a larger batch"
    with pytest.raises(ValueError, match=expected):
        fit(made, {role: x[:1] for role, x in X.items()}, Y[:1])


@pytest.mark.every_backend
def test_a_last_batch_of_one_is_finite_or_raises():
    """Eight samples in batches of seven. TensorFlow does not know the batch size."""
    made = compiled(ChannelIndependence("hidden", "hidden"))
    if keras.backend.backend() == "tensorflow":
        (value,) = fit(made, batch_size=7).history["loss"]
        assert np.isfinite(value)
        return
    with pytest.raises(ValueError, match="or drop the last incomplete one"):
        fit(made, batch_size=7)


def test_cached_features_without_a_required_layer_raise():
    made = compiled([SoftTargets(), FeatureDistillation("mse", "hidden", "hidden")])
    features = made.cache_teacher(X["teacher"])
    del features["hidden"]
    cached = {"student": X["student"], "teacher_features": features}
    expected = r"features lack \['hidden'\]. They hold \['\(output\)'\].*`cache_teacher"
    with pytest.raises(ValueError, match=expected):
        fit(made, cached)


def test_cached_features_of_another_length_raise():
    made = compiled()
    features = made.cache_teacher(X["teacher"][:7])
    cached = {"student": X["student"], "teacher_features": features}
    with pytest.raises(ValueError, match="(?i)sizes|cardinality|same number"):
        fit(made, cached)


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_nan_features_show_in_their_loss_and_the_total(role):
    """Nothing raises or hides them; Keras's `TerminateOnNaN` stops the training."""
    made = compiled([SoftTargets(), ChannelIndependence("hidden", "hidden")])
    broken = X[role].copy()
    broken[0, 0] = np.nan
    stop = keras.callbacks.TerminateOnNaN()
    history = fit(made, {**X, role: broken}, epochs=3, callbacks=[stop]).history
    for name in ("soft_targets", "channel_independence", "distillation_loss", "loss"):
        assert np.isnan(history[name][0]), name
    assert len(history["loss"]) == 1
    assert np.isfinite(history["student_loss"][0]) == (role == "teacher")


def test_a_layer_with_several_outputs_raises():
    """Stacked, they would look like a batch with that number of rows."""
    inputs = keras.Input((5, 4))
    outputs = keras.layers.LSTM(3, return_state=True, name="lstm")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3)(outputs[0]), name="recurrent")
    other = keras.models.clone_model(model)
    with pytest.raises(ValueError, match='list of 3, and one output is .* "lstm:0"'):
        keras_dskd.Distiller(other, model, SpatialUniformity("lstm"))


def test_cached_features_that_are_not_a_dict_raise():
    x = {"student": X["student"], "teacher_features": [rows(8, 3)]}
    with pytest.raises(ValueError, match="must be a dict of name -> array"):
        fit(compiled(), x)


class Raises(keras.distillation.DistillationLoss):
    """Raises when losses are computed, in the first step."""

    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        raise ValueError("does not fit")


def test_an_error_in_the_first_step_leaves_both_models_unchanged():
    """On JAX, the trainer has removed the values from the variables by then."""
    teacher, student = mlp(6, name="teacher"), mlp(4)
    made = keras_dskd.Distiller(teacher, student, Raises())
    made.compile("adam", crossentropy())
    before = teacher.get_weights() + student.get_weights()
    with pytest.raises(ValueError, match="does not fit"):
        made.fit({"teacher": rows(8, 6), "student": rows(8, 4)}, labels(8), verbose=0)
    after = teacher.get_weights() + student.get_weights()
    for one, other in zip(after, before, strict=True):
        np.testing.assert_array_equal(one, other)
    made.evaluate(rows(8, 4), labels(8), verbose=0)


@pytest.mark.parametrize(
    "x, received",
    [
        ({"strong": X["teacher"], "weak": X["student"]}, r"keys \['strong', 'weak'\]"),
        ([X["teacher"], X["student"]], "2 of them"),
    ],
    ids=["dict of other keys", "list"],
)
def test_modalities_without_the_right_keys_raise_and_name_the_keys(x, received):
    made = compiled()
    with pytest.raises(ValueError, match=received + r'.*x=\{"teacher": \.\.\.'):
        fit(made, x)
