"""Pairs that belong together, and pairs that do not."""

import dataclasses
import warnings

import keras
import numpy as np
import pytest
from small_models import Subclassed, cnn, images, mlp, rows

from keras_dskd import check_pairs

N = 96
# Two views of hidden causes: different mixtures, and noise.
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


def numpys_distance_correlation(a, b):
    """Székely et al. 2007, definitions 4 and 5, written out."""

    def centred(x):
        distances = np.array(
            [[np.linalg.norm(one - other) for other in x] for one in x]
        )
        return (
            distances
            - distances.mean(0, keepdims=True)
            - distances.mean(1, keepdims=True)
            + distances.mean()
        )

    def standardised(x):
        x = x.astype("float64")
        return (x - x.mean(0)) / x.std(0)

    a, b = centred(standardised(a)), centred(standardised(b))
    return np.sqrt((a * b).mean() / np.sqrt((a * a).mean() * (b * b).mean()))


def test_good_pairs_pass_without_a_word(capsys):
    """Warnings are errors here."""
    found = check_pairs(*models(), X, verbose=0)
    assert capsys.readouterr().out == ""
    assert not found.looks_shuffled
    assert found.p_value == 1 / 1000
    assert found.agreement > found.by_chance
    assert found.samples == N


def test_a_modality_that_does_not_fit_its_model_is_refused_by_name():
    swapped = {"teacher": X["student"], "student": X["teacher"]}
    with pytest.raises(ValueError, match="^The input does not fit the teacher .* swap"):
        check_pairs(*models(), swapped, verbose=0)
    other = {**X, "student": rows(N, 5)}
    with pytest.raises(
        ValueError, match=r"the student .*\(None, 4\).*x.shape=\(96, 5\)"
    ):
        check_pairs(*models(), other, verbose=0)


def test_the_models_and_the_pairings_have_bars(capsys):
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
    expected = numpys_distance_correlation(*features)
    received = check_pairs(teacher, student, X).agreement
    assert received == pytest.approx(expected, rel=1e-4)  # Features in float32.


# Keras's torch tensors meet NumPy 2; `pytest.warns` shows what is ignored elsewhere.
@pytest.mark.filterwarnings("ignore:__array__ impl:DeprecationWarning")
@pytest.mark.parametrize("x", [SHUFFLED, UNRELATED], ids=["shuffled", "unrelated"])
def test_pairs_that_do_not_belong_together_are_warned_of(x):
    with pytest.warns(UserWarning, match="Pairs look shuffled: .* random pairs"):
        found = check_pairs(*models(), x)
    assert found.looks_shuffled
    assert found.agreement == pytest.approx(found.by_chance, abs=0.1)


def test_of_unrelated_pairs_the_share_that_passes_is_the_level():
    """That is what a level means; 100 draws of a share of 0.2, within 4 deviations."""
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


def test_labels_show_pairs_that_are_wrong_within_their_class():
    """The class alone agrees: without labels such pairs pass."""
    y = np.repeat(np.arange(4), N // 4)
    centres = 4.0 * rows(4, 3, seed=7)
    causes = CAUSES + centres[y]
    x = {
        "teacher": causes @ rows(3, 6, seed=1),
        "student": causes @ rows(3, 4, seed=3),
    }
    shifted = {**x, "student": np.roll(x["student"], 1, axis=0)}
    assert not check_pairs(*models(), x, y).looks_shuffled
    assert not check_pairs(*models(), shifted).looks_shuffled
    assert quietly(*models(), shifted, y).looks_shuffled
    assert quietly(*models(), shifted, np.eye(4)[y]).looks_shuffled


def test_samples_without_a_teacher_are_not_looked_at():
    mask = np.arange(N) % 2 == 0
    teacher = np.where(mask[:, None], X["teacher"], np.nan)
    found = check_pairs(
        *models(), {**X, "teacher": teacher, "teacher_mask": mask[:, None]}
    )
    assert found.samples == N // 2
    assert not found.looks_shuffled


def test_images_of_two_modalities_and_named_layers():
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


def test_a_model_without_a_head_to_be_found_is_looked_at_by_its_output():
    teacher = Subclassed(name="teacher")
    teacher(X["teacher"])
    assert not check_pairs(teacher, mlp(4), X).looks_shuffled


def test_the_same_seed_gives_the_same_answer():
    found = [
        dataclasses.astuple(quietly(*models(), UNRELATED, seed=seed))
        for seed in (1, 1, 2)
    ]
    assert found[0] == found[1] != found[2]


def test_features_that_are_constant_agree_with_nothing():
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
            r"Received: \[9, 96\] samples",
        ),
        ({name: x[:7] for name, x in X.items()}, {}, "At least 8 pairs .* Received: 7"),
        ({"student": X["student"]}, {}, 'Received: no x."teacher".'),
        (X, {"y": np.zeros(5)}, r"Received: \[96, 96, 5\] samples"),
        (X, {"y": np.arange(N)}, "fewer than 8 that share one. Received: 96 classes"),
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
        "other numbers",
        "too few",
        "no teacher",
        "too few labels",
        "labels of one sample each",
        "no level",
        "too few permutations",
        "no layer",
        "NaN",
        "too few teachers",
    ],
)
def test_wrong_uses_say_what_came(x, kwargs, message):
    with pytest.raises(ValueError, match=message):
        check_pairs(*models(), x, **kwargs)


def test_tensors_are_arrays_too():
    mask = np.arange(N) % 4 > 0
    y = np.arange(N) % 2
    expected = check_pairs(*models(), {**X, "teacher_mask": mask}, y)
    x = {**X, "teacher_mask": mask}
    tensors = {key: keras.ops.convert_to_tensor(array) for key, array in x.items()}
    received = check_pairs(*models(), tensors, keras.ops.convert_to_tensor(y))
    assert received == expected


def test_what_is_no_array_of_rows_is_refused():
    with pytest.raises(ValueError, match="arrays of one row a sample.*generator"):
        check_pairs(*models(), {**X, "teacher": (row for row in X["teacher"])})
