"""check_pairs: good pairs pass, and shuffled pairs cause a warning."""

import dataclasses
import warnings

import keras
import numpy as np
import pytest
from small_models import Subclassed, cnn, images, mlp, rows

from keras_dskd import check_pairs

N = 96
# Two views of the same hidden causes: each mixes them differently and adds noise.
CAUSES = rows(N, 3)
X = {
    "teacher": CAUSES @ rows(3, 6, seed=1) + 0.3 * rows(N, 6, seed=2),
    "student": CAUSES @ rows(3, 4, seed=3) + 0.3 * rows(N, 4, seed=4),
}
SHUFFLED = {**X, "student": X["student"][np.random.default_rng(5).permutation(N)]}
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
    assert not found.looks_shuffled
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
    with pytest.warns(UserWarning, match="Pairs look shuffled: .* random pairs"):
        found = check_pairs(*models(), x)
    assert found.looks_shuffled
    assert found.agreement == pytest.approx(found.by_chance, abs=0.1)


@pytest.mark.backend_neutral
def test_unrelated_pairs_pass_with_the_probability_of_the_level():
    """The share of 100 draws is within 4 standard deviations of the level."""
    teacher, student = models()
    passed = [
        not quietly(
            teacher,
            student,
            {"teacher": rows(16, 6, seed=seed), "student": rows(16, 4, seed=seed + 1)},
            level=0.2,
            permutations=19,
        ).looks_shuffled
        for seed in range(0, 200, 2)
    ]
    assert 0.2 - 4 * 0.04 < np.mean(passed) < 0.2 + 4 * 0.04


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
