"""Identify a sample's teacher feature among those of the batch."""

import numpy as np
import reference
from gradients import value

from keras_dskd import ops

LABELS = np.array([0, 1, 0, 2, 1])
TEACHER, STUDENT = reference.samples(5, 3), reference.samples(5, 3, seed=1)


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
