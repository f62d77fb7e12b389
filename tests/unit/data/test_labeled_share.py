"""`LabeledShare` draws a fixed number of labeled rows for each batch."""

import keras
import numpy as np
import pytest

from keras_dskd import ArrayDataset, LabeledShare, with_unlabeled

pytestmark = pytest.mark.backend_neutral

LABELED, OTHERS = 7, 40


def numbered(labeled=LABELED, others=OTHERS):
    """Pairs that hold their row number."""
    count = labeled + others
    number = np.arange(count, dtype="float32")[:, None]
    some = {"teacher": number[:labeled], "student": -number[:labeled]}
    rest = {"teacher": number[labeled:], "student": -number[labeled:]}
    return with_unlabeled(some, np.arange(labeled), rest)


def batches(data):
    """The row numbers of an epoch's batches."""
    result = []
    for index in range(len(data)):
        x, y = data[index]
        rows = x["teacher"][:, 0].astype(int)
        np.testing.assert_array_equal(x["student"][:, 0], -rows)
        np.testing.assert_array_equal(x["label_mask"], rows < LABELED)
        np.testing.assert_array_equal(y[x["label_mask"]], rows[x["label_mask"]])
        result.append(rows)
    data.on_epoch_end()
    return result


def test_each_batch_has_the_same_number_of_labeled_rows():
    data = LabeledShare(*numbered(), batch_size=12, labeled_rows=4, seed=0)
    for _ in range(3):
        epoch = batches(data)
        assert [len(rows) for rows in epoch] == [12] * 5
        assert all((rows < LABELED).sum() == 4 for rows in epoch)
        drawn = np.concatenate(epoch)
        # Each row without labels once, each with labels two or three times.
        np.testing.assert_array_equal(
            np.sort(drawn[drawn >= LABELED]), np.arange(LABELED, LABELED + OTHERS)
        )
        times = np.bincount(drawn[drawn < LABELED], minlength=LABELED)
        assert set(times) == {2, 3}


def test_the_last_batch_is_smaller_or_dropped():
    x, y = numbered()
    assert [len(rows) for rows in batches(LabeledShare(x, y, None, 13, 4))] == [
        *(4 * [13]),
        4 + 4,
    ]
    data = LabeledShare(x, y, None, 13, 4, drop_remainder=True)
    assert [len(rows) for rows in batches(data)] == 4 * [13]


def test_seed_and_epoch_determine_the_order():
    x, y = numbered()

    def order(seed, epoch=0, **kwargs):
        data = LabeledShare(x, y, batch_size=12, labeled_rows=4, seed=seed, **kwargs)
        data.epoch = epoch
        return np.concatenate(batches(data)).tolist()

    assert order(0) == order(0)
    assert order(0) != order(1)
    assert order(0) != order(0, epoch=1)
    in_order = order(0, shuffle=False)
    assert in_order == order(1, epoch=3, shuffle=False)
    assert in_order[:12] == [0, 1, 2, 3, *range(7, 15)]
    assert in_order[12:24] == [4, 5, 6, 0, *range(15, 23)]


def test_a_quarter_is_labeled_by_default():
    x, y = numbered()
    assert LabeledShare(x, y, batch_size=16).labeled_rows == 4
    assert LabeledShare(x, y, batch_size=3).labeled_rows == 1
    assert LabeledShare(x, y, batch_size=40).labeled_rows == LABELED


def test_weights_follow_their_rows():
    x, y = numbered()
    weight = np.arange(LABELED + OTHERS)
    x_batch, _, weights = LabeledShare(x, y, weight, batch_size=8)[0]
    np.testing.assert_array_equal(x_batch["teacher"][:, 0], weights)


@pytest.mark.parametrize("labeled_rows", [0, 8, 12, 2.5])
def test_a_number_that_does_not_fit_is_refused(labeled_rows):
    with pytest.raises(ValueError, match="whole number from 1 to 7.*Received"):
        LabeledShare(*numbered(), batch_size=12, labeled_rows=labeled_rows)


def test_masks_that_do_not_fit_are_refused():
    x, y = numbered()
    with pytest.raises(ValueError, match=r'needs x\["label_mask"\]'):
        LabeledShare({"teacher": x["teacher"], "student": x["student"]}, y)
    with pytest.raises(ValueError, match="47 of 47 rows labeled"):
        LabeledShare(x | {"label_mask": np.ones(47)}, y)
    with pytest.raises(ValueError, match=r"shape \(47, 2\)"):
        LabeledShare(x | {"label_mask": np.ones((47, 2))}, y)
    with pytest.raises(ValueError, match="No batch is left of 40 rows without labels"):
        LabeledShare(x, y, None, 47, 1, drop_remainder=True)


def test_it_is_an_array_dataset():
    """Wrappers, caches on disk and worker processes take it as one."""
    data = LabeledShare(*numbered())
    assert isinstance(data, ArrayDataset)
    assert isinstance(data, keras.utils.PyDataset)
