"""`with_unlabeled` joins pairs with and without labels."""

import re

import numpy as np
import pytest
from small_models import labels, rows

from keras_dskd import with_unlabeled

pytestmark = pytest.mark.backend_neutral


def pair(n, seed=0, **more):
    return {"teacher": rows(n, 6, seed), "student": rows(n, 4, seed + 1), **more}


def test_rows_with_labels_come_first():
    some, others, y = pair(3), pair(5, 7), labels(3) + 1
    x, joined = with_unlabeled(some, y, others)
    assert list(x) == ["teacher", "student", "label_mask"]
    for key in some:
        np.testing.assert_array_equal(x[key], np.concatenate([some[key], others[key]]))
        assert x[key].dtype == some[key].dtype
    np.testing.assert_array_equal(x["label_mask"], [1, 1, 1, 0, 0, 0, 0, 0])
    assert x["label_mask"].dtype == bool
    np.testing.assert_array_equal(joined, [*y, 0, 0, 0, 0, 0])
    assert joined.dtype == y.dtype


def test_labels_of_any_structure_keep_their_kinds():
    y = {
        "kind": np.array(["a", "b"]),
        "size": [rows(2, 3), np.ones((2, 4, 4), "uint8")],
    }
    _, joined = with_unlabeled(pair(2), y, pair(3))
    assert [each.shape for each in joined["size"]] == [(5, 3), (5, 4, 4)]
    assert [each.dtype for each in joined["size"]] == ["float32", "uint8"]
    assert joined["kind"].tolist() == ["a", "b", "", "", ""]
    assert not joined["size"][0][2:].any()


def test_features_and_inputs_of_any_structure_are_joined():
    def some(n):
        features = {"output": rows(n, 3), "block/mask": np.ones((n, 5), bool)}
        return {"student": [rows(n, 2), rows(n, 4)], "teacher_features": features}

    x, _ = with_unlabeled(some(2), labels(2), some(4))
    assert [each.shape for each in x["student"]] == [(6, 2), (6, 4)]
    assert x["teacher_features"]["block/mask"].shape == (6, 5)


def test_masks_are_extended():
    has_teacher = np.array([[1], [0]])
    x, _ = with_unlabeled(
        pair(2, teacher_mask=has_teacher, label_mask=np.array([0.0, 1.0])),
        labels(2),
        pair(1),
    )
    np.testing.assert_array_equal(x["teacher_mask"], [True, False, True])
    np.testing.assert_array_equal(x["label_mask"], [False, True, False])
    x, _ = with_unlabeled(pair(1), labels(1), pair(2, teacher_mask=has_teacher))
    np.testing.assert_array_equal(x["teacher_mask"], [True, True, False])


@pytest.mark.parametrize(
    ("x", "y", "others", "message"),
    [
        (rows(3), labels(3), pair(2), "`x` must be a dict"),
        (pair(3), labels(3), rows(2), "`x_unlabeled` must be a dict"),
        (pair(3), None, pair(2), "needs labels of `x`"),
        (pair(3), labels(2), pair(2), "same number of rows.*'y': [2]"),
        (pair(3), labels(3), {"teacher": rows(2, 6)}, "same keys"),
        (pair(3), labels(3), pair(2) | {"student": rows(2, 5)}, "rows of one shape"),
        (pair(3), labels(3), pair(2) | {"student": [rows(2)]}, "same structure"),
        (pair(3), labels(3), pair(2) | {"student": rows(4, 4)}, "`x_unlabeled` must"),
        (pair(3), labels(3), pair(0), "at least one"),
        (pair(3), labels(3), pair(2, label_mask=np.ones(2)), "Pass these rows as `x`"),
        (pair(3, depth=1), labels(3), pair(2), "`x` has keys"),
    ],
)
def test_what_does_not_fit_is_refused(x, y, others, message):
    with pytest.raises(ValueError, match=re.escape(message).replace(r"\.\*", ".*")):
        with_unlabeled(x, y, others)
