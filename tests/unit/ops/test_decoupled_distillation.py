"""Decoupled distillation: the true class and the other classes, separately."""

import keras
import numpy as np
import pytest
import reference
from gradients import value, value_and_gradient

from keras_dskd import ops

LABELS = np.array([0, 2, 3, 1, 1])
TEACHER, STUDENT = reference.samples(5, 4), reference.samples(5, 4, seed=1)


def test_value_by_hand():
    # The teacher gives 1/2, 1/4, 1/4, the student 1/4, 1/4, 1/2, at T = 1, and the
    # class is the first: 0.5 ln(0.5 / 0.25) + 0.5 ln(0.5 / 0.75) = 0.143841; among the
    # others 1/2, 1/2 against 1/3, 2/3: 0.5 ln(1.5) + 0.5 ln(0.75) = 0.0588915.
    teacher, student = np.log([[0.5, 0.25, 0.25]]), np.log([[0.25, 0.25, 0.5]])
    actual = value(
        lambda t, s: ops.decoupled_distillation(t, s, [0], 1.0, 2.0, 10.0),
        teacher,
        student,
    )
    np.testing.assert_allclose(actual, 2 * 0.143841 + 10 * 0.0588915, rtol=1e-5)


def test_weighted_by_the_teachers_uncertainty_it_equals_soft_targets():
    p = reference.softmax(TEACHER[:1] / 4.0)[0]
    actual = value(
        lambda t, s: ops.decoupled_distillation(
            t, s, [2], target_weight=1.0, non_target_weight=1.0 - p[2]
        ),
        TEACHER[:1],
        STUDENT[:1],
    )
    expected = reference.soft_targets(TEACHER[:1], STUDENT[:1])
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_confident_teacher_and_equal_logits_have_finite_gradients():
    sure = np.array([[80.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    _, gradients = value_and_gradient(
        lambda t, s: ops.decoupled_distillation(t, s, [0, 1], 1.0),
        sure,
        np.array([[-80.0, 5.0, 0.0], [1.0, 1.0, 1.0]]),
    )
    assert np.isfinite(gradients).all()
    np.testing.assert_allclose(gradients[1][1], 0.0, atol=1e-6)


@pytest.mark.parametrize("form", ["numbers", "column", "one_hot", "floats"])
def test_labels_are_accepted_in_every_form(form):
    labels = {
        "numbers": LABELS,
        "column": LABELS[:, None],
        "one_hot": np.eye(4, dtype="float32")[LABELS],
        "floats": LABELS.astype("float32"),
    }[form]
    actual = value(
        lambda t, s: ops.decoupled_distillation(t, s, labels), TEACHER, STUDENT
    )
    expected = reference.decoupled_distillation(TEACHER, STUDENT, LABELS)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "labels=None. Pass `y`"),
        ({"a": LABELS, "b": LABELS}, "one array of labels. Received: a dict of 2"),
        ([LABELS, LABELS], "Received: a list of 2"),
        (np.zeros((5, 2, 2)), r"labels.shape=\(5, 2, 2\)"),
    ],
)
def test_labels_that_do_not_fit_raise(labels, message):
    with pytest.raises(ValueError, match=message):
        ops.decoupled_distillation(TEACHER, STUDENT, labels)


@pytest.mark.parametrize("ignored", [255, -1, 2])
@pytest.mark.parametrize("one_hot", [False, True])
def test_an_ignored_class_leaves_the_mean(ignored, one_hot):
    """As Keras's `ignore_class`: the mean is over the kept positions."""
    teacher, student = reference.samples(3, 2, 4), reference.samples(3, 2, 4, seed=1)
    labels = np.array([[0, 2], [2, 3], [1, 2]])
    kept = labels != 2
    labels[~kept] = ignored
    given = labels
    if one_hot:
        if ignored != 2:
            pytest.skip("One-hot labels hold no other number")
        given = np.eye(4, dtype="float32")[labels]
    actual, gradients = value_and_gradient(
        lambda t, s: ops.decoupled_distillation(t, s, given, ignore_class=ignored),
        teacher,
        student,
    )
    expected = reference.decoupled_distillation(
        teacher[kept], student[kept], labels[kept]
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    assert np.isfinite(gradients).all()
    np.testing.assert_array_equal(gradients[1][~kept], 0.0)
    assert np.abs(gradients[1][kept]).min() > 0


def test_the_mean_over_kept_samples_is_that_of_keras():
    """Keras divides the sum by the number of kept positions, weights or not."""
    weight = np.array([1.0, 2.0, 0.5, 3.0, 1.5], "float32")
    logits = keras.ops.convert_to_tensor(STUDENT, "float32")
    keras_mean = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, ignore_class=1
    )(LABELS, logits, sample_weight=weight)
    kept = LABELS != 1
    losses = -reference.log_softmax(STUDENT)[range(5), LABELS]
    np.testing.assert_allclose(
        float(keras_mean), (weight * losses)[kept].sum() / kept.sum(), rtol=1e-5
    )
    each = [
        reference.decoupled_distillation(TEACHER[i : i + 1], STUDENT[i : i + 1], [y])
        for i, y in enumerate(LABELS)
    ]
    actual = value(
        lambda t, s: ops.decoupled_distillation(
            t, s, LABELS, sample_weight=weight, ignore_class=1
        ),
        TEACHER,
        STUDENT,
    )
    expected = (weight * each)[kept].sum() / kept.sum()
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_samples_without_a_teacher_leave_the_mean_over_kept_samples():
    # The weights that the Distiller gives for a mask.
    mask = np.array([1, 1, 0, 1, 0], bool)
    weight = np.where(mask, 5 / 3, 0.0).astype("float32")
    kept = mask & (LABELS != 1)
    actual = value(
        lambda t, s: ops.decoupled_distillation(
            t, s, LABELS, sample_weight=weight, ignore_class=1
        ),
        TEACHER,
        STUDENT,
    )
    expected = reference.decoupled_distillation(
        TEACHER[kept], STUDENT[kept], LABELS[kept]
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_without_kept_samples_the_loss_is_zero():
    actual, gradients = value_and_gradient(
        lambda t, s: ops.decoupled_distillation(t, s, [7] * 5, ignore_class=7),
        TEACHER,
        STUDENT,
    )
    assert actual == 0.0
    np.testing.assert_array_equal(gradients[1], 0.0)
