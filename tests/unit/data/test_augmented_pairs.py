"""Augmented pairs: one seeded draw for all modalities; the rest is refused."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_dskd

N = 12
CENTERS = np.random.default_rng(0).uniform(0.4, 0.6, (N, 2))  # Of height and width.


def spots(height, width, channels=1):
    """One bright spot per image, at the same relative place whatever the size."""
    rows = (np.arange(height)[:, None] + 0.5) / height - CENTERS[:, 0, None, None]
    columns = (np.arange(width) + 0.5) / width - CENTERS[:, 1, None, None]
    spot = np.exp(-(rows**2 + columns**2) / (2 * 0.1**2))
    return spot[..., None].repeat(channels, axis=-1).astype("float32")


def places(images):
    """Centers of mass of the spots, relative to height and width."""
    mass = images.sum(axis=-1)
    mass = mass / mass.sum(axis=(1, 2), keepdims=True)
    height, width = mass.shape[1:]
    return np.stack(
        [
            mass.sum(axis=2) @ ((np.arange(height) + 0.5) / height),
            mass.sum(axis=1) @ ((np.arange(width) + 0.5) / width),
        ],
        axis=1,
    )


def dataset(teacher, student, batch_size=N, y=None, **more):
    x = {"teacher": teacher, "student": student, **more}
    y = np.arange(N) % 3 if y is None else y
    return keras_dskd.ArrayDataset(x, y, batch_size=batch_size, shuffle=False)


def augmented(teacher, student, moves, seed=1, batch_size=N, **options):
    data = dataset(teacher, student, batch_size)
    return keras_dskd.AugmentedPairs(data, moves, seed=seed, **options)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.RandomFlip(),
        lambda: layers.RandomTranslation(0.1, 0.1),
        lambda: layers.RandomZoom((0.2, 0.6), (0.2, 0.6), fill_mode="constant"),
        lambda: layers.RandomPerspective(1.0, 0.3),
        lambda: layers.RandomRotation(0.2),
        lambda: layers.RandomShear(0.3, 0.3),
    ],
    ids=["flip", "translation", "zoom", "perspective", "rotation", "shear"],
)
def test_images_of_different_sizes_move_alike(layer):
    x, y = augmented(spots(24, 24, channels=3), spots(12, 12), layer())[0]
    assert x["teacher"].shape == (N, 24, 24, 3)
    assert x["student"].shape == (N, 12, 12, 1)
    # A tenth of a pixel of the student's: the grids of pixels differ.
    np.testing.assert_allclose(places(x["student"]), places(x["teacher"]), atol=0.008)
    assert np.abs(places(x["student"]) - CENTERS).max() > 0.02
    np.testing.assert_array_equal(y, np.arange(N) % 3)


def test_images_of_different_proportions_are_flipped_alike():
    x, _ = augmented(spots(24, 24), spots(24, 12), layers.RandomFlip())[0]
    np.testing.assert_allclose(places(x["student"]), places(x["teacher"]), atol=1e-4)
    assert np.abs(places(x["student"]) - CENTERS).max() > 0.02


def test_images_of_one_size_are_cropped_alike():
    teacher, student = spots(24, 24, channels=3), spots(24, 24)
    x, _ = augmented(teacher, student, layers.RandomCrop(16, 18))[0]
    assert x["student"].shape == (N, 16, 18, 1)
    np.testing.assert_array_equal(x["teacher"][..., :1], x["student"])
    assert any(
        np.array_equal(x["student"], student[:, top : top + 16, left : left + 18])
        for top in range(9)
        for left in range(7)
    )


@pytest.mark.parametrize("seeded", [True, False])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("RandomFlip", ("horizontal",)),
        ("RandomTranslation", (0.2, 0.2)),
        ("RandomZoom", (0.2,)),
        ("RandomRotation", (0.2,)),
        ("RandomCrop", (16, 18)),
    ],
)
def test_layers_of_keras_cv_move_images_of_one_size_alike(name, arguments, seeded):
    keras_cv = pytest.importorskip("keras_cv", reason="these layers are KerasCV's")
    layer = getattr(keras_cv.layers, name)(*arguments, seed=7 if seeded else None)
    teacher, student = spots(24, 24, channels=3), spots(24, 24)
    before = np.asarray(layer._random_generator.state)
    first, again = (augmented(teacher, student, layer)[0][0] for _ in range(2))
    assert not np.array_equal(first["student"], student)
    np.testing.assert_allclose(first["teacher"][..., :1], first["student"], atol=1e-6)
    np.testing.assert_array_equal(first["student"], again["student"])
    np.testing.assert_array_equal(np.asarray(layer._random_generator.state), before)


def test_flip_reverses_the_arrays():
    rng = np.random.default_rng(0)
    teacher = rng.integers(0, 256, (N, 6, 6, 3), "uint8")
    student = rng.random((N, 4, 4, 1))
    x, _ = augmented(teacher, student, layers.RandomFlip("horizontal"))[0]
    assert (x["teacher"].dtype, x["student"].dtype) == (np.float32, np.float64)
    flipped = [
        not np.array_equal(*pair) for pair in zip(x["teacher"], teacher, strict=True)
    ]
    assert 0 < sum(flipped) < N
    for row, is_flipped in enumerate(flipped):
        step = -1 if is_flipped else 1
        np.testing.assert_array_equal(x["teacher"][row], teacher[row][:, ::step])
        np.testing.assert_allclose(
            x["student"][row], student[row][:, ::step], rtol=1e-6
        )


def test_layers_are_applied_in_order():
    moves = [layers.RandomRotation(0.2), layers.RandomTranslation(0.1, 0.1)]
    x, _ = augmented(spots(24, 24, 3), spots(12, 12), moves)[0]
    turned, _ = augmented(spots(24, 24, 3), spots(12, 12), moves[:1])[0]
    np.testing.assert_allclose(places(x["student"]), places(x["teacher"]), atol=0.008)
    assert np.abs(places(x["student"]) - places(turned["student"])).max() > 0.02


def test_draws_depend_on_seed_row_batch_and_epoch():
    def moved(data, index=0):
        return places(data[index][0]["student"]) - CENTERS[:6]

    same = np.tile(spots(12, 12)[:1], (N, 1, 1, 1))
    layer = layers.RandomTranslation(0.2, 0.2)
    data, again = (augmented(same, same, layer, batch_size=6) for _ in range(2))
    first = moved(data)
    data.on_epoch_end()
    assert data.epoch == 0  # Not all batches were read.
    np.testing.assert_array_equal(first, moved(again))
    assert len(np.unique(first[:, 0].round(4))) == 6
    assert np.abs(first[:, 0] - first[:, 1]).max() > 0.01  # Axes have their own.
    assert not np.allclose(first, moved(data, 1))
    data.on_epoch_end()
    assert data.epoch == data.data.epoch == 1
    second = moved(data)
    assert not np.allclose(first, second)
    again.epoch = 1
    assert again.data.epoch == 1
    np.testing.assert_array_equal(second, moved(again))
    assert not np.allclose(first, moved(augmented(same, same, layer, 2, batch_size=6)))


def test_default_seed_follows_set_random_seed():
    def drawn():
        keras.utils.set_random_seed(3)
        layer = layers.RandomTranslation(0.2, 0.2)
        return augmented(spots(12, 12), spots(12, 12), layer, seed=None)[0][0]

    np.testing.assert_array_equal(drawn()["student"], drawn()["student"])


def test_state_of_the_layers_is_neither_read_nor_changed():
    layer = layers.RandomTranslation(0.2, 0.2, seed=5)
    before = keras.ops.convert_to_numpy(layer.generator.state)
    data = augmented(spots(12, 12), spots(12, 12), layer)
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(layer.generator.state), before
    )
    other = augmented(
        spots(12, 12), spots(12, 12), layers.RandomTranslation(0.2, 0.2, seed=6)
    )
    np.testing.assert_array_equal(data[0][0]["student"], other[0][0]["student"])


def test_other_arrays_than_images_stay_unchanged():
    mask = np.arange(N) % 2 == 0
    table = np.arange(2.0 * N).reshape(N, 2)
    student = {"image": spots(12, 12), "table": table}
    data = dataset(spots(24, 24), student, teacher_mask=mask)
    x, _ = keras_dskd.AugmentedPairs(data, layers.RandomFlip("vertical"), seed=0)[0]
    np.testing.assert_array_equal(x["teacher_mask"], mask)
    np.testing.assert_array_equal(x["student"]["table"], table)
    np.testing.assert_allclose(
        places(x["student"]["image"]), places(x["teacher"]), atol=1e-4
    )


def test_modality_alone_moves_as_in_its_pair():
    layer = layers.RandomTranslation(0.2, 0.2)
    pair = augmented(spots(24, 24, 3), spots(12, 12), layer)
    alone = keras_dskd.ArrayDataset(
        spots(12, 12), np.arange(N), batch_size=N, shuffle=False
    )
    x, _ = keras_dskd.AugmentedPairs(alone, layer, seed=1)[0]
    np.testing.assert_array_equal(x, pair[0][0]["student"])


def test_mixed_pairs_can_be_augmented():
    x = {"teacher": spots(24, 24, 3), "student": spots(12, 12)}
    pairs = keras_dskd.ArrayDataset(x, np.arange(N) % 3, batch_size=N, seed=0)
    mixed = keras_dskd.MixedPairs(pairs, seed=0)
    data = keras_dskd.AugmentedPairs(mixed, layers.RandomFlip(), seed=0)
    x, y = data[0]
    np.testing.assert_allclose(places(x["student"]), places(x["teacher"]), atol=1e-3)
    np.testing.assert_array_equal(y, mixed[0][1])


@pytest.mark.parametrize("workers", [1, 2])
def test_fit_trains_on_augmented_pairs(workers):
    teacher, student = (
        keras.Sequential([keras.Input(shape), layers.Flatten(), layers.Dense(3)])
        for shape in ((24, 24, 3), (12, 12, 1))
    )
    distiller = keras_dskd.Distiller(
        teacher, student, keras_dskd.losses.SoftTargets(4.0)
    )
    distiller.compile(
        "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    data = augmented(
        spots(24, 24, 3),
        spots(12, 12),
        layers.RandomTranslation(0.1, 0.1),
        batch_size=4,
        workers=workers,
    )
    history = distiller.fit(data, epochs=2, shuffle=False, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    # Several workers read ahead of the epochs.
    assert data.epoch == 2 if workers == 1 else data.epoch >= 2


@pytest.mark.parametrize(
    ("move", "student", "message"),
    [
        (layers.RandomBrightness(0.2), spots(24, 24), "colors belongs to one mod"),
        (layers.Dense(3), spots(24, 24), "Dense cannot be shared by modalities"),
        ("flip", spots(24, 24), "str cannot be shared by modalities"),
        (layers.RandomElasticTransform(), spots(24, 24), "cannot be shared"),
        (
            layers.RandomCrop(8, 8),
            spots(12, 12),
            "needs images that have one size. Rec",
        ),
        (layers.RandomRotation(0.1), spots(24, 12), "have the same proportions. Rec"),
        (layers.RandomFlip(), spots(24, 24)[..., 0], "Expected images of shape"),
    ],
    ids=[
        "color",
        "no augmentation",
        "no layer",
        "elastic",
        "size",
        "proportions",
        "rank",
    ],
)
def test_layers_and_images_that_cannot_share_a_draw_are_refused(move, student, message):
    with pytest.raises(ValueError, match=message):
        augmented(spots(24, 24), student, move)


def test_keras_cv_colors_and_unequal_sizes_are_refused():
    keras_cv = pytest.importorskip("keras_cv", reason="these layers are KerasCV's")
    with pytest.raises(ValueError, match="RandomContrast cannot be shared"):
        contrast = keras_cv.layers.RandomContrast((0, 255), 0.2)
        augmented(spots(24, 24), spots(24, 24), contrast)
    flip = keras_cv.layers.RandomFlip()
    with pytest.raises(ValueError, match="keras_cv's RandomFlip .* have one size"):
        augmented(spots(24, 24), spots(12, 12), flip)
    with pytest.raises(ValueError, match="not made for threads"):
        augmented(spots(24, 24), spots(24, 24), flip, workers=2)


def test_wrong_data_are_refused():
    flip = layers.RandomFlip()
    with pytest.raises(ValueError, match="Received: ndarray. Arrays become one by"):
        keras_dskd.AugmentedPairs(spots(8, 8), flip)
    with pytest.raises(ValueError, match="does not survive a fork"):
        augmented(spots(8, 8), spots(8, 8), flip, use_multiprocessing=True)
    positions = dataset(spots(8, 8), spots(8, 8), y=np.zeros((N, 8, 8)))
    with pytest.raises(ValueError, match="Labels of positions .*shape=.12, 8, 8.*Flip"):
        keras_dskd.AugmentedPairs(positions, flip)
    cached = dataset(spots(8, 8), spots(8, 8), teacher_features=spots(4, 4))
    with pytest.raises(ValueError, match="images that were not moved"):
        keras_dskd.AugmentedPairs(cached, flip)
