"""Identify a sample's teacher feature among those of the batch."""

import numpy as np
import pytest
import reference
from gradients import assert_gradient_close, value, value_and_gradient

from keras_dskd import ops

LABELS = np.array([0, 1, 0, 2, 1])
TEACHER, STUDENT = reference.samples(5, 3), reference.samples(5, 3, seed=1)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("labels", [None, LABELS])
@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_value_and_gradient_match_the_reference(labels, temperature, compiled):
    actual, gradients = value_and_gradient(
        lambda t, s: ops.contrastive_distillation(t, s, temperature, labels),
        TEACHER,
        STUDENT,
        compiled=compiled,
    )

    def of(student):
        return reference.contrastive_distillation(TEACHER, student, temperature, labels)

    np.testing.assert_allclose(actual, of(STUDENT), rtol=1e-5)
    assert_gradient_close(gradients[1], reference.finite_difference(of, STUDENT))


def test_value_by_hand():
    # Each student points to its own teacher, at a right angle to the other one.
    actual = value(ops.contrastive_distillation, 3 * np.eye(2), 5 * np.eye(2))
    np.testing.assert_allclose(actual, np.log(1 + np.exp(-5.0)), rtol=1e-5)


def test_samples_of_a_single_class_have_no_negatives():
    actual = value(
        lambda t, s: ops.contrastive_distillation(t, s, labels=[3] * 5),
        TEACHER,
        STUDENT,
    )
    assert actual == 0.0


def test_masked_rows_are_neither_anchors_nor_negatives():
    mask = np.array([1, 1, 0, 1, 1], bool)
    teacher = np.where(mask[:, None], TEACHER, np.nan)
    weight = np.where(mask, 5 / 4, 0.0)
    actual = value(
        lambda t, s: ops.contrastive_distillation(
            t, s, sample_weight=weight, mask=mask
        ),
        teacher,
        STUDENT,
    )
    expected = reference.contrastive_distillation(TEACHER[mask], STUDENT[mask])
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_rows_of_zeros_have_a_finite_gradient():
    _, gradients = value_and_gradient(
        ops.contrastive_distillation, TEACHER, np.zeros((5, 3))
    )
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_different_widths_raise():
    with pytest.raises(ValueError, match="3 teacher channels and 2 student channels"):
        ops.contrastive_distillation(TEACHER, STUDENT[:, :2])
