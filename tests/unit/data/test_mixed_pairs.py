"""Mixed pairs: rows remain pairs, labels have the same share, and fit takes them."""

import keras
import numpy as np
import pytest
from small_models import cnn, images

import keras_dskd

N = 20
LABELS = np.arange(N) % 5


def pairs():
    strong = images(N, 3, seed=1)
    return {"teacher": strong, "student": 2 * strong[..., :1]}


def made(**options):
    options = {"batch_size": 8, "seed": 3, **options}
    return keras_dskd.MixedPairs(pairs(), LABELS, **options)


def test_a_mixed_row_is_the_formula_in_every_array():
    data = made(shuffle=False)
    x, y = data[1]
    # What the batch is mixed of, as its documentation says.
    own = {name: rows[8:16] for name, rows in pairs().items()}
    labels = np.eye(5)[LABELS[8:16]]
    # The share and the order, from the labels alone: 5 classes in a batch of 8.
    share = next(v for v in np.unique(y.astype("float64")) if 0 < v < 0.5)
    for m in (share, 1 - share):
        others = [
            [
                j
                for j in range(8)
                if np.allclose(m * labels[i] + (1 - m) * labels[j], y[i], atol=1e-6)
                and np.allclose(
                    m * own["teacher"][i] + (1 - m) * own["teacher"][j],
                    x["teacher"][i],
                    atol=1e-6,
                )
            ]
            for i in range(8)
        ]
        if all(others):
            break
    assert sorted(j for (j,) in others) == list(range(8))
    for i, (j,) in enumerate(others):
        np.testing.assert_allclose(
            x["student"][i],
            m * own["student"][i] + (1 - m) * own["student"][j],
            atol=1e-6,
        )


def test_mixed_rows_remain_pairs_and_labels_sum_to_one():
    data = made()
    for index in range(len(data)):
        x, y = data[index]
        np.testing.assert_allclose(x["student"], 2 * x["teacher"][..., :1], rtol=1e-5)
        np.testing.assert_allclose(y.sum(axis=1), 1.0, rtol=1e-6)
        assert x["teacher"].dtype == y.dtype == np.float32


def test_mixtures_are_of_the_seed_and_new_in_each_epoch():
    data, again = made(), made()
    np.testing.assert_array_equal(data[1][1], again[1][1])
    first = data[0][0]["student"]
    data.epoch = 1
    assert not np.allclose(data[0][0]["student"], first)
    assert not np.allclose(made(seed=4)[0][0]["student"], first)


def test_whole_numbers_are_mixed_as_floats_and_soft_labels_as_they_are():
    x = np.arange(8, dtype="uint8")[:, None] * 30
    soft = np.random.default_rng(0).random((8, 2))
    mixed, y = keras_dskd.MixedPairs(x, soft, batch_size=8, seed=0)[0]
    assert mixed.dtype == np.float32
    assert y.dtype == np.float64
    assert mixed.sum() == pytest.approx(x.sum(), rel=1e-6)  # A mixture of orders.
    assert y.sum() == pytest.approx(soft.sum())


def test_class_numbers_in_a_column_and_their_count():
    x = np.zeros((4, 1))
    _, y = keras_dskd.MixedPairs(x, np.array([[0], [1], [1], [0]]), classes=3)[0]
    assert y.shape == (4, 3)


@pytest.mark.parametrize("smaller_batch", [True, False])
def test_the_remainder_can_be_left_out(smaller_batch):
    data = made(drop_remainder=not smaller_batch)
    assert [len(data[i][1]) for i in range(len(data))] == [8, 8, 4][: 2 + smaller_batch]
    with pytest.raises(ValueError, match="No batch is left of 20 rows"):
        made(batch_size=21, drop_remainder=True)


def test_fit_trains_on_mixed_pairs():
    keras.utils.set_random_seed(0)
    distiller = keras_dskd.recommended(
        cnn(3, widths=(4, 6, 6), name="teacher"),
        cnn(1, widths=(4, 4, 4)),
        ["relu1", "relu2"],
    )
    distiller.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True))
    y = np.arange(N) % int(distiller.student.output.shape[-1])
    data = keras_dskd.MixedPairs(pairs(), y, batch_size=8, drop_remainder=True)
    history = distiller.fit(data, epochs=2, shuffle=False, verbose=0).history
    assert np.isfinite(history["loss"]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0}, "`alpha` must be a positive number. Received: 0"),
        ({"alpha": "1"}, "`alpha` must be a positive number. Received: '1'"),
        ({"alpha": np.inf}, "`alpha` must be a positive number"),
        ({"classes": 4}, "from 0 to 3. Received: numbers from 0 to 4"),
        ({"classes": "5"}, "`classes` must be a whole number"),
        ({"sample_weight": np.ones(N)}, "takes no `sample_weight`"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        made(**options)


@pytest.mark.parametrize("key", ["teacher_features", "teacher_mask"])
def test_what_cannot_be_mixed_is_refused(key):
    x = {**pairs(), key: np.ones(N)}
    with pytest.raises(ValueError, match=rf'x\["{key}"\] cannot be mixed'):
        keras_dskd.MixedPairs(x, LABELS)


def test_labels_are_needed():
    with pytest.raises(ValueError, match="needs labels. Received: y=None"):
        keras_dskd.MixedPairs(pairs(), None)
