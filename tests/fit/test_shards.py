"""A teacher cache in shards: each process writes and reads its own rows."""

import keras
import numpy as np
import pytest
from cachable import N, X, distiller
from small_models import images, labels

import keras_dskd

COUNT = 3
CLOSE = {"rtol": 1e-5, "atol": 1e-6}  # The same program on batches of other sizes.


def whole():
    return distiller().cache_teacher(X, batch_size=5, verbose=0)


def leaves(features):
    return {name: np.asarray(features[name]) for name in features}


@pytest.mark.backend_neutral
def test_shards_cover_each_row_once():
    for samples in (7, 12, 37):
        for count in (1, 2, 5, 7):
            rows = [
                np.arange(samples)[keras_dskd.shard_rows(samples, (index, count))]
                for index in range(count)
            ]
            np.testing.assert_array_equal(np.concatenate(rows), np.arange(samples))
            sizes = {len(part) for part in rows}
            assert sizes <= {samples // count, samples // count + 1}
            assert min(sizes) == samples // count


@pytest.mark.backend_neutral
def test_numpy_integers_are_taken_as_shards(tmp_path):
    # 900 times this number of rows overflows int32.
    shard = np.int32(900), np.int32(1000)
    rows = keras_dskd.shard_rows(np.int32(100_000_000), shard)
    assert rows == slice(90_000_000, 90_100_000)
    shard = np.int64(1), np.int64(2)
    features = distiller().cache_teacher(X, tmp_path, 5, verbose=0, shard=shard)
    opened = keras_dskd.open_teacher_cache(tmp_path, shard=(1, 2))
    assert leaves(features).keys() == leaves(opened).keys()


@pytest.mark.backend_neutral
def test_array_instead_of_row_count_is_refused():
    with pytest.raises(ValueError, match="number of rows.*Received: ndarray"):
        keras_dskd.shard_rows(np.zeros(10), (0, 2))


@pytest.mark.backend_neutral
@pytest.mark.parametrize("on_disk", [True, False])
def test_shard_contains_its_rows(tmp_path, on_disk):
    path = tmp_path / "cache" if on_disk else None
    expected = leaves(whole())
    for index in range(COUNT):
        shard = (index, COUNT)
        own = keras_dskd.shard_rows(N, shard)
        features = distiller().cache_teacher(X, path, 5, verbose=0, shard=shard)
        for name, feature in leaves(features).items():
            np.testing.assert_allclose(feature, expected[name][own], **CLOSE)


@pytest.mark.backend_neutral
def test_pydataset_is_read_in_shards(tmp_path):
    data = keras_dskd.ArrayDataset(X, batch_size=4, shuffle=False)
    expected = leaves(whole())
    for index in range(COUNT):
        shard = (index, COUNT)
        features = distiller().cache_teacher(data, tmp_path, verbose=0, shard=shard)
        own = keras_dskd.shard_rows(N, shard)
        for name, feature in leaves(features).items():
            np.testing.assert_allclose(feature, expected[name][own], **CLOSE)


def test_shard_trains(tmp_path):
    made = distiller()
    made.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    shard = (1, 2)
    own = keras_dskd.shard_rows(N, shard)
    features = made.cache_teacher(X, tmp_path, verbose=0, shard=shard)
    x = {"student": images(N, 1, seed=2)[own], "teacher_features": features}
    data = keras_dskd.ArrayDataset(x, labels(N)[own], batch_size=5)
    history = made.fit(data, epochs=1, shuffle=False, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


@pytest.mark.backend_neutral
def test_cache_of_other_shards_is_refused(tmp_path):
    made = distiller()
    made.cache_teacher(X, tmp_path, verbose=0, shard=(0, 2))
    before = sorted(tmp_path.rglob("*"))
    for other in ((0, 3), None):
        with pytest.raises(ValueError, match=r"shard=\(index, 2\)"):
            made.cache_teacher(X, tmp_path, verbose=0, shard=other)
        with pytest.raises(ValueError, match=r"shard=\(index, 2\)"):
            keras_dskd.open_teacher_cache(tmp_path, shard=other)
    with pytest.raises(ValueError, match="no teacher cache"):
        keras_dskd.open_teacher_cache(tmp_path, shard=(1, 2))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.backend_neutral
def test_cache_without_shards_is_not_divided(tmp_path):
    made = distiller()
    made.cache_teacher(X, tmp_path, verbose=0)
    with pytest.raises(ValueError, match="not in shards"):
        made.cache_teacher(X, tmp_path, verbose=0, shard=(0, 2))


@pytest.mark.backend_neutral
@pytest.mark.parametrize("shard", [(2, 2), (-1, 2), (0, 0), 1, (0.0, 2), "01", (0,)])
def test_invalid_shards_are_refused(shard):
    with pytest.raises(ValueError, match="0 <= index < count"):
        distiller().cache_teacher(X, verbose=0, shard=shard)
    with pytest.raises(ValueError, match="0 <= index < count"):
        keras_dskd.shard_rows(10, shard)


@pytest.mark.backend_neutral
def test_more_shards_than_rows_are_refused():
    with pytest.raises(ValueError, match="more shards than rows"):
        distiller().cache_teacher(X, verbose=0, shard=(0, N + 1))


@pytest.mark.backend_neutral
def test_shard_needs_a_length(tmp_path):
    def batches():
        yield X[:4]

    with pytest.raises(ValueError, match="number of samples"):
        distiller().cache_teacher(batches(), verbose=0, shard=(0, 2))
