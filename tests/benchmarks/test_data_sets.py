"""Data of the method comparison: load, degrade, split."""

from dataclasses import fields

import numpy as np
import pytest

for needed in ("scipy", "sklearn"):
    pytest.importorskip(needed, reason=f"the benchmarks need {needed}")
data_sets = pytest.importorskip("data_sets")

pytestmark = pytest.mark.backend_neutral


def file_of_images(path, **changed):
    rng = np.random.default_rng(0)
    arrays = {"scene_train": np.arange(100) // 5}
    for part, count in (("train", 100), ("test", 20)):
        arrays[f"strong_{part}"] = rng.integers(0, 256, (count, 8, 8, 3), "uint8")
        arrays[f"weak_{part}"] = rng.integers(0, 256, (count, 8, 8, 1), "uint8")
        arrays[f"y_{part}"] = np.arange(count) % 4
    arrays.update(changed)
    np.savez(path, **{key: a for key, a in arrays.items() if a is not None})
    return str(path)


@pytest.fixture
def images(tmp_path):
    return data_sets.load(file_of_images(tmp_path / "own.npz"))


def contents(rows):
    """The bytes of each row, to identify it."""
    return [row.tobytes() for row in rows]


def test_first_rows_of_a_stratified_order_keep_class_shares():
    y = np.repeat([0, 1, 2], [60, 30, 10])
    order = data_sets.stratified_order(y, np.random.default_rng(0))
    np.testing.assert_array_equal(np.sort(order), np.arange(100))
    for count in (10, 33, 50, 90):
        shares = np.bincount(y[order[:count]], minlength=3)
        np.testing.assert_allclose(shares, count * np.array([0.6, 0.3, 0.1]), atol=1)


def test_digits_are_those_of_the_example():
    digits = data_sets.load("digits")
    assert digits.data.strong_train.shape == (1000, 8, 8, 1)
    assert digits.is_images
    assert digits.degrade is None


def test_modalities_of_a_table_share_no_column():
    table = data_sets.load("breast_cancer")
    data = table.data
    assert not table.is_images
    assert data.strong_train.shape == (398, 20)
    assert data.weak_test.shape == (171, 10)
    everything = [column.tobytes() for column in data.strong_train.T]
    assert not set(everything) & {column.tobytes() for column in data.weak_train.T}
    # Both parts have the same class shares.
    assert data.y_train.mean() == pytest.approx(data.y_test.mean(), abs=0.01)


def test_tables_are_standardized_by_training_rows():
    table = data_sets.load("breast_cancer")
    for on, limit in (("test", None), ("validation", 100)):
        rows = data_sets.split(table, on, 0, limit)
        for array in (rows.strong_train, rows.weak_train):
            np.testing.assert_allclose(array.mean(axis=0), 0, atol=1e-5)
            np.testing.assert_allclose(array.std(axis=0), 1, rtol=1e-4)
        assert np.abs(rows.weak_test.mean(axis=0)).max() > 0.01


def test_split_for_test_trains_on_all_training_rows(images):
    rows = data_sets.split(images, "test", seed=0)
    for field in fields(rows):
        np.testing.assert_array_equal(
            getattr(rows, field.name), getattr(images.data, field.name)
        )


def test_validation_takes_whole_scenes(images):
    rows = data_sets.split(images, "validation", seed=0)
    scenes = dict(zip(contents(images.data.weak_train), images.scenes, strict=True))
    train = {scenes[value] for value in contents(rows.weak_train)}
    held = {scenes[value] for value in contents(rows.weak_test)}
    assert not train & held
    assert len(train | held) == 20
    assert len(rows.y_test) == 20


def test_validation_keeps_class_shares_if_there_are_no_scenes(tmp_path):
    path = file_of_images(tmp_path / "own.npz", scene_train=None)
    rows = data_sets.split(data_sets.load(path), "validation", seed=0)
    np.testing.assert_array_equal(np.bincount(rows.y_test), [5, 5, 5, 5])
    np.testing.assert_array_equal(np.bincount(rows.y_train), [20, 20, 20, 20])
    assert not set(contents(rows.weak_train)) & set(contents(rows.weak_test))


def test_split_keeps_rows_paired(images):
    pairs = dict(
        zip(
            contents(images.data.weak_train),
            contents(images.data.strong_train),
            strict=True,
        )
    )
    rows = data_sets.split(images, "validation", seed=1, limit=30)
    for strong, weak in (
        (rows.strong_train, rows.weak_train),
        (rows.strong_test, rows.weak_test),
    ):
        for value, other in zip(contents(weak), contents(strong), strict=True):
            assert pairs[value] == other


def test_split_depends_on_the_seed_only(images):
    once, again, other = (data_sets.split(images, "validation", s) for s in (0, 0, 1))
    np.testing.assert_array_equal(once.weak_test, again.weak_test)
    assert set(contents(once.weak_test)) != set(contents(other.weak_test))


def test_limit_keeps_class_shares_and_scored_rows(images):
    everything = data_sets.split(images, "validation", 0)
    rows = data_sets.split(images, "validation", 0, limit=20)
    assert np.abs(np.bincount(rows.y_train) - 5).max() <= 1
    np.testing.assert_array_equal(rows.weak_test, everything.weak_test)
    with pytest.raises(SystemExit, match="--limit 81: own has 80 rows"):
        data_sets.split(images, "validation", 0, limit=81)


def test_labeled_rows_keep_class_shares_or_are_whole_scenes(images):
    def mask(**given):
        return data_sets.labeled_rows(images, "validation", 0, **given)

    rows = data_sets.split(images, "validation", 0)
    scenes = dict(zip(contents(images.data.weak_train), images.scenes, strict=True))
    of_rows = np.array([scenes[value] for value in contents(rows.weak_train)])
    assert mask() is None
    for labeled in (20, 0.25):
        assert np.abs(np.bincount(rows.y_train[mask(labeled=labeled)]) - 5).max() <= 1
    few = mask(scenes=3)
    assert len(np.unique(of_rows[few])) == 3
    assert not set(of_rows[few]) & set(of_rows[~few])
    for given, message in (
        ({"labeled": 80}, "--labeled 80: own has 80 rows"),
        ({"scenes": 16}, "--labeled-scenes 16: own has 16 scenes"),
    ):
        with pytest.raises(SystemExit, match=message):
            mask(**given)
    with pytest.raises(SystemExit, match="does not say which scene"):
        table = data_sets.load("breast_cancer")
        data_sets.labeled_rows(table, "test", 0, scenes=1)


def test_sequences_are_standardized_by_channel(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"scene_train": None, "subject_train": np.arange(100) // 50}
    for part, count in (("train", 100), ("test", 20)):
        for side in ("strong", "weak"):
            values = rng.normal(3.0, [1.0, 5.0], (count, 10, 2))
            arrays[f"{side}_{part}"] = values.astype("float32")
    loaded = data_sets.load(file_of_images(tmp_path / "own.npz", **arrays))
    assert loaded.axes == 1 and not loaded.is_images
    np.testing.assert_array_equal(loaded.scenes, arrays["subject_train"])
    rows = data_sets.split(loaded, "test", 0)
    np.testing.assert_allclose(rows.weak_train.mean((0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(rows.weak_train.std((0, 1)), 1, rtol=1e-4)


def test_degradation_replaces_the_weak_modality(tmp_path, images):
    path = str(tmp_path / "own.npz")
    gray = data_sets.load(path, "color_loss:1")
    expected = images.data.strong_test.mean(axis=-1, keepdims=True)
    np.testing.assert_allclose(
        gray.data.weak_test, np.broadcast_to(expected, (20, 8, 8, 3)), rtol=1e-5
    )
    assert (gray.name, gray.degrade) == ("own", "color_loss:1")
    # Loading again gives the same images, and the checksum is that of the file.
    for strength in ("0.50", ".5"):
        noisy = data_sets.load(path, f"speckle:{strength}")
        assert noisy.degrade == "speckle:0.5"
        assert noisy.checksum == images.checksum
    again = data_sets.load(path, "speckle:0.5")
    np.testing.assert_array_equal(noisy.data.weak_train, again.data.weak_train)


def test_checksum_changes_with_the_data(tmp_path, images):
    path = file_of_images(tmp_path / "own.npz", y_test=np.zeros(20, int))
    assert data_sets.load(path).checksum != images.checksum


@pytest.mark.parametrize(
    ("source", "degrade", "message"),
    [
        ("digit", None, "takes digits, breast_cancer or an .npz file.*digit"),
        ("nowhere.npz", None, "no file nowhere.npz"),
        ("digits", "fog:0.5", "no degradation 'fog'"),
        ("digits", "speckle", "speckle:0.5"),
        ("digits", "speckle:1.5", "strength=1.5"),
        ("digits", "color_loss:1", "colors to lose"),
        ("breast_cancer", "speckle:0.5", "Expected images"),
    ],
)
def test_unknown_data_or_degradation_raises(source, degrade, message):
    with pytest.raises(SystemExit, match=message):
        data_sets.load(source, degrade)


def test_pairing_images_with_a_table_raises(tmp_path):
    parts = (("train", 100), ("test", 20))
    changed = {f"weak_{part}": np.zeros((count, 3)) for part, count in parts}
    with pytest.raises(SystemExit, match="both modalities must be images"):
        data_sets.load(file_of_images(tmp_path / "own.npz", **changed))


def test_validation_of_a_single_scene_raises(tmp_path):
    path = file_of_images(tmp_path / "own.npz", scene_train=np.zeros(100, int))
    with pytest.raises(SystemExit, match="too few scenes"):
        data_sets.split(data_sets.load(path), "validation", 0)
