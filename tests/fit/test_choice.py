"""`choose` trains candidates alike and keeps the best on validation rows."""

import keras
import numpy as np
import pytest
from small_models import crossentropy, labels, mlp, rows

import keras_dskd

X = {"teacher": rows(24, 6, seed=1), "student": rows(24, 4, seed=2)}
Y = labels(24)
VALIDATION = rows(10, 4, seed=3), labels(10, seed=3)
DEFAULT = [
    "student alone",
    "soft targets, T = 1",
    "soft targets, T = 4",
    "recommended, T = 1",
    "recommended, T = 4",
]


def student(classes=3):
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(5, "tanh", name="hidden"),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(classes, name="logits"),
        ],
        name="student",
    )


def training(loss=None, y=Y, seen=None):
    """A function that trains a distiller, and notes it with its first weights."""

    def train(distiller):
        if seen is not None:
            seen.append((distiller, distiller.student.get_weights()))
        distiller.compile("adam", crossentropy() if loss is None else loss)
        distiller.fit(X, y, batch_size=8, epochs=2, verbose=0)

    return train


def choose(train=None, validation_data=VALIDATION, **options):
    options.setdefault("intermediate_features", "hidden")
    teacher = options.pop("teacher", None) or mlp(6, name="teacher", seed=10)
    build = options.pop("build_student", student)
    train = train or training()
    return keras_dskd.choose(teacher, build, train, validation_data, **options)


def test_the_candidate_with_the_best_mean_score_is_chosen(capsys):
    choice = choose(seeds=2, steps=6)

    x, y = VALIDATION
    assert list(choice.scores) == DEFAULT
    means = {name: scores.mean() for name, scores in choice.scores.items()}
    assert means[choice.name] == max(means.values())
    # The score is the accuracy, and the kept student is that of the first seed.
    is_right = choice.student.predict(x, verbose=0).argmax(-1) == y
    np.testing.assert_array_equal(choice.scores[choice.name][0], is_right)
    printed = capsys.readouterr().out
    assert "seed 1, recommended, T = 4" in printed
    assert "10 validation rows, 2 seeds" in printed


def test_candidates_start_alike_and_have_their_settings():
    seen = []
    choose(training(seen=seen), verbose=False)

    made = [distiller for distiller, _ in seen]
    for _, weights in seen[1:]:
        for one, other in zip(weights, seen[0][1], strict=True):
            np.testing.assert_array_equal(one, other)
    assert made[0].student_loss_weight == 1.0
    assert [len(each.distillation_losses) for each in made] == [1, 1, 1, 2, 2]
    temperatures = [each.distillation_losses[0].temperature for each in made[1:]]
    assert temperatures == [1.0, 4.0, 1.0, 4.0]


def test_the_student_alone_trains_as_without_a_distiller():
    choice = choose(candidates={"alone": alone}, verbose=False)

    keras.utils.set_random_seed(0)
    plain = student()
    keras.utils.set_random_seed(0)
    plain.compile("adam", crossentropy())
    plain.fit(X["student"], Y, batch_size=8, epochs=2, verbose=0)
    for one, other in zip(
        choice.student.get_weights(), plain.get_weights(), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def alone(teacher, student):
    return keras_dskd.Distiller(
        teacher, student, keras_dskd.losses.SoftTargets(), student_loss_weight=1.0
    )


@pytest.mark.backend_neutral
def test_regression_has_no_temperature_and_scores_squared_errors():
    target, (x, _) = rows(24, 3), VALIDATION
    y = rows(10, 3, seed=5)
    choice = choose(training("mse", target), (x, y), verbose=False)

    assert list(choice.scores) == ["student alone", "outputs", "recommended"]
    error = np.mean((choice.student.predict(x, verbose=0) - y) ** 2, axis=1)
    np.testing.assert_allclose(choice.scores[choice.name][0], -error, rtol=1e-5)


@pytest.mark.backend_neutral
def test_labels_that_do_not_exclude_one_another_count_one_by_one():
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    x, _ = VALIDATION
    y = (rows(10, 3, seed=5) > 0).astype("float32")
    several = (rows(24, 3) > 0).astype("float32")
    choice = choose(training(loss, several), (x, y), verbose=False)

    assert list(choice.scores) == DEFAULT
    is_right = (choice.student.predict(x, verbose=0) > 0) == (y > 0.5)
    np.testing.assert_allclose(choice.scores[choice.name][0], is_right.mean(1))


@pytest.mark.backend_neutral
@pytest.mark.parametrize("form", ["one-hot", "column", "pairs"])
def test_validation_data_may_have_any_form_of_labels_and_inputs(form):
    x, y = VALIDATION
    expected = choose(verbose=False).scores
    if form == "one-hot":
        y = np.eye(3)[y]
    elif form == "column":
        y = y[:, None]
    else:
        x = {"student": x, "teacher": rows(10, 6)}
    scores = choose(validation_data=(x, y), verbose=False).scores
    for name in DEFAULT:
        np.testing.assert_array_equal(scores[name], expected[name])


def choice_of(scores):
    names = list(scores)
    scores = {name: np.array(found, float) for name, found in scores.items()}
    return keras_dskd.choice.Choice(names[-1], alone, None, scores)


@pytest.mark.backend_neutral
def test_gain_of_one_seed_has_the_paired_interval_over_rows():
    choice = choice_of({"alone": [[0, 1, 1, 0]], "other": [[1, 1, 1, 0]]})
    mean, low, high = choice.gain()
    # Differences 1, 0, 0, 0: their variance is 0.25, that of their mean 0.0625.
    assert (mean, low, high) == pytest.approx((0.25, 0.25 - 0.49, 0.25 + 0.49))
    assert choice.gain("alone") == (0.0, 0.0, 0.0)


@pytest.mark.backend_neutral
def test_gain_of_several_seeds_includes_their_variation():
    choice = choice_of(
        {"alone": [[0, 0], [0, 0]], "other": [[1, 1], [0, 0]]}  # All rows differ alike.
    )
    mean, low, high = choice.gain()
    # Gains of the seeds are 1 and 0: their variance is 0.5, that of their mean 0.25.
    assert (mean, low, high) == pytest.approx((0.5, 0.5 - 0.98, 0.5 + 0.98))


@pytest.mark.backend_neutral
def test_summary_lists_gains_and_the_choice():
    lines = []
    choice_of({"alone": [[0, 1, 1, 0]], "other": [[1, 1, 1, 0]]}).summary(lines.append)
    header, _, first, second, last = lines[0].splitlines()
    assert header.split() == ["candidate", "score", "-", "alone", "95", "%", "interval"]
    assert first.split() == ["alone", "0.5000"]
    assert second.split() == [
        "other",
        "0.7500",
        "+0.2500",
        "[-0.2400,",
        "+0.7400]",
        "chosen",
    ]
    assert last == "4 validation rows, 1 seed"


@pytest.mark.backend_neutral
def test_repr_leaves_out_the_scores_of_the_rows():
    shown = repr(choice_of({"alone": [[0.0, 1.0]], "other": [[1.0, 1.0]]}))
    assert "name='other'" in shown and "array" not in shown


@pytest.mark.backend_neutral
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_data": rows(10)}, r"must be a tuple `\(x, y\)`.*ndarray"),
        ({"validation_data": (rows(10), Y)}, r"numbers of rows: \[10, 24\]"),
        ({"validation_data": (rows(0), Y[:0])}, r"numbers of rows: \[0\]"),
        ({"validation_data": (rows(3), [0, 1, 2])}, "numbers of rows"),
        ({"seeds": 0}, "a whole number, 1 or more. Received: seeds=0"),
        ({"seeds": 1.5}, "a whole number, 1 or more. Received: seeds=1.5"),
        ({"candidates": {}}, "a dict of at least one name.*Received: {}"),
        ({"candidates": ["dskd"]}, r"a dict of at least one name.*\['dskd'\]"),
        (
            {"candidates": {"none": lambda teacher, student: None}},
            "The candidate 'none' must return a `keras_dskd.Distiller`.*None",
        ),
        (
            {"build_student": student()},
            "`build_student` must be a function.*Sequential",
        ),
        ({"build_student": lambda: None}, "must return a `keras.Model`.*NoneType"),
        ({"train": student()}, "`train` must be a function. Received: Sequential"),
        ({"train": lambda distiller: None}, "`train` must compile and fit"),
        ({"intermediate_features": "hiden"}, "hidden"),
        ({"score": lambda y, p: y[:4] == 0}, r"for each of 10 rows.*\(4,\)"),
        ({"score": lambda y, p: np.where(y, np.nan, 1)}, "finite. Received: . of 10"),
        (
            {"validation_data": (VALIDATION[0], np.full(10, 255))},
            "classes from 0 to 2. Received: labels from 255 to 255",
        ),
        (
            {"validation_data": (VALIDATION[0], rows(10, 7))},
            "must have 3 classes.*7",
        ),
    ],
)
def test_wrong_arguments_raise(options, message):
    with pytest.raises(ValueError, match=message):
        choose(verbose=False, **options)


@pytest.mark.backend_neutral
def test_a_student_that_diverged_is_not_chosen():
    def diverging(distiller):
        distiller.compile("adam", crossentropy())
        if distiller.student_loss_weight == 1.0:
            weights = distiller.student.get_weights()
            distiller.student.set_weights([np.nan * weight for weight in weights])

    choice = choose(train=diverging, verbose=False)
    assert choice.scores["student alone"].mean() == 0.0
    assert choice.name != "student alone"


@pytest.mark.backend_neutral
def test_a_student_that_was_returned_before_raises():
    one = student()
    with pytest.raises(ValueError, match="must return a new model"):
        choose(build_student=lambda: one, verbose=False)


@pytest.mark.backend_neutral
def test_a_candidate_without_a_loss_of_outputs_needs_a_score():
    def aligned(teacher, student):
        loss = keras_dskd.losses.FitNet("hidden", "hidden")
        return keras_dskd.Distiller(teacher, student, loss)

    with pytest.raises(ValueError, match="Pass `score`.*0 losses of outputs"):
        choose(candidates={"aligned": aligned}, verbose=False)
    choice = choose(
        candidates={"aligned": aligned},
        score=lambda y, predictions: predictions[:, 0],
        verbose=False,
    )
    assert choice.scores["aligned"].shape == (1, 10)


@pytest.mark.backend_neutral
def test_pixels_of_images_are_scored_one_by_one():
    def net(name):
        inputs = keras.Input((4, 4, 1))
        x = keras.layers.Conv2D(3, 3, padding="same", name="hidden")(inputs)
        return keras.Model(inputs, keras.layers.Conv2D(3, 1)(x), name=name)

    x = np.random.default_rng(0).normal(size=(6, 4, 4, 1)).astype("float32")
    y = np.random.default_rng(1).integers(0, 3, (6, 4, 4))

    def train(distiller):
        distiller.compile("adam", crossentropy())
        distiller.fit({"teacher": x, "student": x}, y, verbose=0)

    choice = choose(
        train,
        (x, y),
        teacher=net("teacher"),
        build_student=lambda: net("student"),
        verbose=False,
    )
    is_right = choice.student.predict(x, verbose=0).argmax(-1) == y
    np.testing.assert_allclose(choice.scores[choice.name][0], is_right.mean((1, 2)))
