"""Mixed pairs: rows remain pairs, labels have the same share, and fit takes them."""

import pickle

import keras
import numpy as np
import pytest
from keras import ops
from small_models import cnn, images

import keras_dskd

N = 20
LABELS = np.arange(N) % 5


def pairs():
    strong = images(N, 3, seed=1)
    return {"teacher": strong, "student": 2 * strong[..., :1]}


def dataset(x=None, y=LABELS, **options):
    options = {"batch_size": 8, "seed": 3, **options}
    return keras_dskd.ArrayDataset(pairs() if x is None else x, y, **options)


def mixed(data=None, **options):
    data = dataset() if data is None else data
    return keras_dskd.MixedPairs(data, **{"seed": 3, **options})


def test_every_array_is_mixed_by_the_formula():
    data = mixed(dataset(shuffle=False))
    x, y = data[1]
    # The rows that the batch mixes.
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
    data = mixed()
    for index in range(len(data)):
        x, y = data[index]
        np.testing.assert_allclose(x["student"], 2 * x["teacher"][..., :1], rtol=1e-5)
        np.testing.assert_allclose(y.sum(axis=1), 1.0, rtol=1e-6)
        assert x["teacher"].dtype == y.dtype == np.float32


def test_seed_and_epoch_determine_mixtures():
    data, again = mixed(), mixed()
    np.testing.assert_array_equal(data[1][1], again[1][1])
    first = data[0][0]["student"]
    data.epoch = 1
    assert data.data.epoch == 1
    assert not np.allclose(data[0][0]["student"], first)
    assert not np.allclose(mixed(seed=4)[0][0]["student"], first)


def test_epochs_follow_those_of_the_data():
    data = mixed()
    for epoch in range(3):
        assert (data.epoch, data.data.epoch) == (epoch, epoch)
        data.on_epoch_end()  # Not all batches were read.
        assert (data.epoch, data.data.epoch) == (epoch, epoch)
        for index in range(len(data)):
            data[index]
        data.on_epoch_end()
    started = dataset()
    started.epoch = 7
    assert mixed(started).epoch == 7


def test_integers_are_mixed_as_floats_and_soft_labels_as_they_are():
    x = np.arange(8, dtype="uint8")[:, None] * 30
    soft = np.random.default_rng(0).random((8, 2))
    mixture, y = mixed(dataset(x, soft))[0]
    assert mixture.dtype == np.float32
    assert y.dtype == np.float64
    assert mixture.sum() == pytest.approx(x.sum(), rel=1e-6)  # A mixture of orders.
    assert y.sum() == pytest.approx(soft.sum())


def test_class_indices_may_be_a_column():
    data = dataset(np.zeros((4, 1)), np.array([[0], [1], [1], [0]]))
    _, y = mixed(data, classes=3)[0]
    assert y.shape == (4, 3)


def test_each_array_of_labels_has_its_number_of_classes():
    y = {"one": LABELS, "soft": np.eye(2)[LABELS % 2], "two": LABELS % 3}
    _, labels = mixed(dataset(y=y))[0]
    shapes = {name: part.shape for name, part in labels.items()}
    assert shapes == {"one": (8, 5), "soft": (8, 2), "two": (8, 3)}


class Batches(keras.utils.PyDataset):
    """Batches of tensors, whose labels nobody knows before they are read."""

    def __init__(self, y=LABELS):
        super().__init__()
        self.y = y

    def __len__(self):
        return 2

    def __getitem__(self, index):
        rows = slice(10 * index, 10 * index + 10)
        x = {name: ops.convert_to_tensor(part[rows]) for name, part in pairs().items()}
        return x, ops.convert_to_tensor(self.y[rows])


def test_any_data_set_is_mixed():
    x, y = mixed(Batches(), classes=6)[1]
    np.testing.assert_allclose(x["student"], 2 * x["teacher"][..., :1], rtol=1e-5)
    assert y.shape == (10, 6)
    with pytest.raises(ValueError, match="number is not known. Pass `classes`"):
        mixed(Batches())
    later = np.where(np.arange(N) < 10, 0, 7)
    with pytest.raises(ValueError, match="from 0 to 4. Received: from 7 to 7"):
        mixed(Batches(later), classes=5)[1]


def test_augmented_pairs_are_mixed():
    augmented = keras_dskd.AugmentedPairs(dataset(), keras.layers.RandomFlip(), seed=1)
    x, y = mixed(augmented, classes=5)[0]
    np.testing.assert_allclose(x["student"], 2 * x["teacher"][..., :1], rtol=1e-5)
    assert y.shape == (8, 5)


def test_processes_mix_what_threads_mix():
    data = mixed()
    copy = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(copy[1][1], data[1][1])


@pytest.mark.parametrize("smaller_batch", [True, False])
def test_last_batch_can_be_left_out(smaller_batch):
    data = mixed(dataset(drop_remainder=not smaller_batch))
    assert [len(data[i][1]) for i in range(len(data))] == [8, 8, 4][: 2 + smaller_batch]
    with pytest.raises(ValueError, match="No batch is left of 20 rows"):
        dataset(batch_size=21, drop_remainder=True)


def test_fit_trains_on_mixed_pairs():
    keras.utils.set_random_seed(0)
    distiller = keras_dskd.recommended(
        cnn(3, widths=(4, 6, 6), name="teacher"),
        cnn(1, widths=(4, 4, 4)),
        ["relu1", "relu2"],
    )
    distiller.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True))
    y = np.arange(N) % int(distiller.student.output.shape[-1])
    data = mixed(dataset(y=y, batch_size=4))
    history = distiller.fit(data, epochs=2, shuffle=False, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert data.epoch == data.data.epoch == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0}, "`alpha` must be a positive number. Received: 0"),
        ({"alpha": "1"}, "`alpha` must be a positive number. Received: '1'"),
        ({"alpha": np.inf}, "`alpha` must be a positive number"),
        ({"classes": 4}, "from 0 to 3. Received: from 0 to 4"),
        ({"classes": "5"}, "`classes` must be an integer"),
        ({"data": pairs()}, "must be a keras.utils.PyDataset. Received: dict"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        mixed(**options)


@pytest.mark.parametrize("key", ["teacher_features", "teacher_mask"])
def test_cached_features_and_masks_cannot_be_mixed(key):
    x = {**pairs(), key: np.ones(N)}
    with pytest.raises(ValueError, match=rf'x\["{key}"\] cannot be mixed'):
        mixed(dataset(x))


def test_sample_weights_cannot_be_mixed():
    with pytest.raises(ValueError, match="`sample_weight` cannot be mixed"):
        mixed(dataset(sample_weight=np.ones(N)))


def test_mixing_needs_labels():
    with pytest.raises(ValueError, match="needs labels. Received: y=None"):
        mixed(dataset(y=None))
