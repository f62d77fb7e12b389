"""check_pairs: good pairs pass, and shuffled pairs cause a warning."""

import dataclasses
import warnings

import keras
import numpy as np
import pytest
from small_models import Subclassed, cnn, images, mlp, rows

from keras_dskd import check_pairs
from keras_dskd.data.some_rows import some_rows

N = 96
# Two views of the same hidden causes: each mixes them differently and adds noise.
CAUSES = rows(N, 3)
X = {
    "teacher": CAUSES @ rows(3, 6, seed=1) + 0.3 * rows(N, 6, seed=2),
    "student": CAUSES @ rows(3, 4, seed=3) + 0.3 * rows(N, 4, seed=4),
}
SHUFFLED = {**X, "student": X["student"][np.random.default_rng(12).permutation(N)]}
UNRELATED = {**X, "student": rows(N, 4, seed=6)}


def models():
    return mlp(6, name="teacher", seed=10), mlp(4)


def quietly(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return check_pairs(*args, **kwargs)


def distance_correlation(a, b):
    """Székely et al. 2007, definitions 4 and 5, in NumPy."""

    def double_centered(x):
        distances = np.array(
            [[np.linalg.norm(one - other) for other in x] for one in x]
        )
        return (
            distances
            - distances.mean(0, keepdims=True)
            - distances.mean(1, keepdims=True)
            + distances.mean()
        )

    def standardized(x):
        x = x.astype("float64")
        return (x - x.mean(0)) / x.std(0)

    a, b = double_centered(standardized(a)), double_centered(standardized(b))
    return np.sqrt((a * b).mean() / np.sqrt((a * a).mean() * (b * b).mean()))


def test_good_pairs_pass_silently(capsys):
    """A warning would fail this test, because the suite turns warnings into errors."""
    found = check_pairs(*models(), X, verbose=0)
    assert capsys.readouterr().out == ""
    assert not found.looks_shuffled and found.answer == "paired"
    assert found.p_value == 1 / 1000
    assert found.agreement > found.by_chance
    assert found.samples == N


def test_a_modality_that_does_not_fit_its_model_raises():
    swapped = {"teacher": X["student"], "student": X["teacher"]}
    with pytest.raises(ValueError, match="^The input does not fit the teacher .* swap"):
        check_pairs(*models(), swapped, verbose=0)
    other = {**X, "student": rows(N, 5)}
    with pytest.raises(
        ValueError, match=r"the student .*\(None, 4\).*x.shape=\(96, 5\)"
    ):
        check_pairs(*models(), other, verbose=0)
    expected = r'takes one input. Received: 2 .*x=\{"teacher": ..., "student": ...\}'
    with pytest.raises(ValueError, match=expected):
        check_pairs(*models(), (X["teacher"], X["student"]), verbose=0)


def test_progress_is_shown_for_the_models_and_the_pairings(capsys):
    batch_size = -(-N // 2)
    check_pairs(*models(), X, permutations=199, batch_size=batch_size, verbose=2)
    lines = capsys.readouterr().out.strip().split("\n")
    assert [line.split()[0] for line in lines] == ["2/2", "2/2", "199/199"]
    check_pairs(*models(), X)
    assert "999/999" in capsys.readouterr().out


def test_the_agreement_is_the_distance_correlation_of_the_head_inputs():
    teacher, student = models()
    features = [
        keras.Model(model.inputs, model.get_layer("hidden").output).predict(
            X[model.name], verbose=0
        )
        for model in (teacher, student)
    ]
    expected = distance_correlation(*features)
    received = check_pairs(teacher, student, X).agreement
    assert received == pytest.approx(expected, rel=1e-4)  # Features in float32.


# NumPy 2 warns about torch tensors' `__array__`, and `pytest.warns` records that, too.
@pytest.mark.filterwarnings("ignore:__array__ impl:DeprecationWarning")
@pytest.mark.parametrize("x", [SHUFFLED, UNRELATED], ids=["shuffled", "unrelated"])
def test_wrong_pairs_cause_a_warning(x):
    with pytest.warns(UserWarning, match="Pairs look shuffled: .*% of random pairs"):
        found = check_pairs(*models(), x)
    assert found.looks_shuffled and found.answer == "shuffled"
    assert found.agreement == pytest.approx(found.by_chance, abs=0.1)


@pytest.mark.backend_neutral
def test_unrelated_pairs_pass_with_the_probability_of_the_level():
    """The share of 100 draws is within 4 standard deviations of the level."""
    teacher, student = models()
    answers = [
        quietly(
            teacher,
            student,
            {"teacher": rows(16, 6, seed=seed), "student": rows(16, 4, seed=seed + 1)},
            level=0.1,
            permutations=19,
        ).answer
        for seed in range(0, 200, 2)
    ]
    for answer, share in (("paired", 0.1), ("unclear", 0.1), ("shuffled", 0.8)):
        deviation = np.sqrt(share * (1 - share) / 100)
        assert abs(answers.count(answer) / 100 - share) < 4 * deviation


@pytest.mark.backend_neutral
def test_pairs_that_agree_a_little_are_unclear():
    """Weaker agreement makes the same pairs paired, unclear, and shuffled."""
    found = {}
    for share in (1.0, 0.2, 0.0):
        mixed = share * X["student"] + (1 - share) * SHUFFLED["student"]
        x = {**X, "student": mixed}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = check_pairs(*models(), x)
        found[result.answer] = [
            str(one.message) for one in caught if one.category is UserWarning
        ]
    assert list(found) == ["paired", "unclear", "shuffled"]
    assert found["paired"] == []
    assert found["unclear"][0].startswith("It is unclear whether the rows are pairs: ")
    assert found["shuffled"][0].startswith("Pairs look shuffled: ")


def test_labels_reveal_pairs_that_are_wrong_within_their_class():
    """Such pairs share their class, so that they pass without labels."""
    y = np.repeat(np.arange(4), N // 4)
    centers = 4.0 * rows(4, 3, seed=7)
    causes = CAUSES + centers[y]
    x = {
        "teacher": causes @ rows(3, 6, seed=1),
        "student": causes @ rows(3, 4, seed=3),
    }
    shifted = {**x, "student": np.roll(x["student"], 1, axis=0)}
    assert not check_pairs(*models(), x, y).looks_shuffled
    assert not check_pairs(*models(), shifted).looks_shuffled
    assert quietly(*models(), shifted, y).looks_shuffled
    assert quietly(*models(), shifted, np.eye(4)[y]).looks_shuffled
    assert quietly(*models(), shifted, np.array(list("abcd"))[y]).looks_shuffled


def test_samples_without_a_teacher_are_ignored():
    mask = np.arange(N) % 2 == 0
    teacher = np.where(mask[:, None], X["teacher"], np.nan)
    found = check_pairs(
        *models(), {**X, "teacher": teacher, "teacher_mask": mask[:, None]}
    )
    assert found.samples == N // 2
    assert not found.looks_shuffled


def test_samples_without_labels_are_ignored_if_labels_are_given():
    has_label = np.arange(N) % 2 == 0
    y = np.arange(N) // 2 % 2
    x = {**X, "label_mask": has_label}
    kept = {name: array[has_label] for name, array in X.items()}
    expected = check_pairs(*models(), kept, y[has_label])
    assert check_pairs(*models(), x, np.where(has_label, y, -1)) == expected
    assert check_pairs(*models(), x).samples == N


def test_images_are_compared_by_named_layers():
    strong = images(N, 3)
    weak = strong.mean(axis=-1, keepdims=True)
    teacher, student = cnn(3, name="teacher"), cnn(1)
    x = {"teacher": strong, "student": weak}
    assert not check_pairs(teacher, student, x).looks_shuffled
    found = check_pairs(
        teacher,
        student,
        x,
        teacher_layer_name="relu0",
        student_layer_name="conv0",
        max_samples=90,
    )
    assert found.samples == 90


def test_a_model_without_a_known_head_is_compared_by_its_output():
    teacher = Subclassed(name="teacher")
    teacher(X["teacher"])
    assert not check_pairs(teacher, mlp(4), X).looks_shuffled


def test_the_same_seed_gives_the_same_result():
    found = [
        dataclasses.astuple(quietly(*models(), UNRELATED, seed=seed))
        for seed in (1, 1, 2)
    ]
    assert found[0] == found[1] != found[2]


def test_constant_features_look_shuffled():
    student = mlp(4)
    student.set_weights([0.0 * weight for weight in student.get_weights()])
    found = quietly(mlp(6, name="teacher"), student, X)
    assert (found.agreement, found.p_value, found.looks_shuffled) == (0.0, 1.0, True)


@pytest.mark.filterwarnings("ignore:__array__ impl:DeprecationWarning")
def test_shuffled_pairs_of_one_class_may_share_no_more_than_the_class():
    y = np.arange(N) % 4
    with pytest.warns(UserWarning, match="of one class .* share no more than the cla"):
        found = check_pairs(*models(), UNRELATED, y)
    assert found.answer == "shuffled"


class Batches(keras.utils.PyDataset):
    """Batches of 16, without labels."""

    def __len__(self):
        return N // 16

    def __getitem__(self, index):
        taken = slice(16 * index, 16 * index + 16)
        return ({name: array[taken] for name, array in X.items()},)


def tf_data():
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices((X, np.zeros(N))).batch(10)


def data_loader():
    torch = pytest.importorskip("torch")
    samples = [({name: array[i] for name, array in X.items()}, 0) for i in range(N)]
    return torch.utils.data.DataLoader(samples, batch_size=7, shuffle=True)


def iterable_loader():
    torch = pytest.importorskip("torch")

    class Samples(torch.utils.data.IterableDataset):
        def __iter__(self):
            for i in range(N):
                yield {name: array[i] for name, array in X.items()}, 0

    return torch.utils.data.DataLoader(Samples(), batch_size=7)


@pytest.mark.backend_neutral
@pytest.mark.parametrize("make", [Batches, tf_data, data_loader, iterable_loader])
def test_a_data_set_gives_the_result_of_its_arrays(make):
    expected = check_pairs(*models(), X, verbose=0)
    found = check_pairs(*models(), make(), verbose=0)
    assert dataclasses.astuple(found) == pytest.approx(dataclasses.astuple(expected))
    some = check_pairs(*models(), make(), max_samples=40, verbose=0)
    assert some.samples == 40


@pytest.mark.backend_neutral
def test_reading_a_data_loader_leaves_the_random_state():
    torch = pytest.importorskip("torch")
    loader = data_loader()
    before = torch.random.get_rng_state()
    some_rows(loader, 40)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.backend_neutral
def test_data_that_cannot_be_read_again_is_refused():
    batches = (Batches()[index] for index in range(3))
    with pytest.raises(ValueError, match="use up its batches.*Received: generator"):
        check_pairs(*models(), batches)
    assert len(list(batches)) == 3
    with pytest.raises(ValueError, match="Pass arrays to use `y`.*Batches"):
        check_pairs(*models(), Batches(), np.zeros(N))


@pytest.mark.parametrize("size", [4, 40])
def test_outputs_for_each_position_are_compared(size):
    def dense(channels, name):
        """Its output is a feature map; no layer is known as the head."""
        inputs = keras.Input((size, size, channels))
        maps = keras.layers.Conv2D(3, 1, name="conv")(inputs)
        return keras.Model(inputs, keras.layers.UpSampling2D(2)(maps), name=name)

    weak = images(N, 1, size) + rows(N, 1)[:, None, None]
    x = {"teacher": np.concatenate([weak, weak, weak], axis=-1), "student": weak}
    found = check_pairs(dense(3, "teacher"), dense(1, "student"), x, verbose=0)
    assert found.answer == "paired"


@pytest.mark.parametrize(
    ("x", "kwargs", "message"),
    [
        (
            {"student": X["student"], "teacher": rows(9, 6)},
            {},
            r"same number of samples. Received: \[9, 96\]",
        ),
        ({name: x[:7] for name, x in X.items()}, {}, "At least 8 pairs .* Received: 7"),
        ({"student": X["student"]}, {}, 'Received: no x."teacher".'),
        (X, {"y": np.zeros(5)}, r"Received: \[96, 96, 5\]"),
        (
            X,
            {"y": np.arange(N)},
            "At least 8 samples .* Received: 96 classes",
        ),
        (X, {"y": rows(N, 1)}, "with fractions, of dtype float32. Leave out `y`"),
        (X, {"y": np.ones((N, 3))}, r"y.shape=\(96, 3\) with other than one 1"),
        (X, {"level": 0.0}, "Received: level=0.0"),
        (X, {"level": 0.01, "permutations": 50}, "permutations=50"),
        (X, {"teacher_layer_name": "hiden"}, 'Tap "hiden" not found'),
        ({**X, "teacher": np.full((N, 6), np.nan)}, {}, "Features must be finite"),
        (
            {**X, "teacher_mask": np.arange(N) < 3},
            {},
            "At least 8 pairs .* Received: 3",
        ),
    ],
    ids=[
        "different numbers of samples",
        "too few",
        "no teacher",
        "too few labels",
        "one sample per class",
        "numbers to regress",
        "several labels per sample",
        "level of 0",
        "too few permutations",
        "unknown layer",
        "NaN",
        "too few teachers",
    ],
)
def test_wrong_arguments_raise(x, kwargs, message):
    with pytest.raises(ValueError, match=message):
        check_pairs(*models(), x, **kwargs)


def test_tensors_give_the_same_result_as_arrays():
    mask = np.arange(N) % 4 > 0
    y = np.arange(N) % 2
    expected = check_pairs(*models(), {**X, "teacher_mask": mask}, y)
    x = {**X, "teacher_mask": mask}
    tensors = {key: keras.ops.convert_to_tensor(array) for key, array in x.items()}
    received = check_pairs(*models(), tensors, keras.ops.convert_to_tensor(y))
    assert received == expected


def test_data_that_is_not_an_array_of_rows_raises():
    with pytest.raises(ValueError, match="arrays with one row per sample.*generator"):
        check_pairs(*models(), {**X, "teacher": (row for row in X["teacher"])})
