"""Train a few candidates and choose one by validation rows."""

import contextlib
import functools
import io
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_dskd.choice.candidates import ALONE, Candidate, alone, with_teacher
from keras_dskd.choice.result import Choice
from keras_dskd.choice.scores import Score, default_score, row_scores
from keras_dskd.data import pairs
from keras_dskd.data.arrays import row_count, sliceable
from keras_dskd.distiller.distiller import Distiller
from keras_dskd.features.teachers import Teacher
from keras_dskd.internal.tasks import Task
from keras_dskd.internal.types import Feature, Nested
from keras_dskd.recipes import recommended


def choose(
    teacher: Teacher,
    build_student: Callable[[], keras.Model],
    train: Callable[[Distiller], Any],
    validation_data: tuple[Nested, Any],
    candidates: Mapping[str, Candidate] | None = None,
    score: Score | None = None,
    seeds: int = 1,
    intermediate_features: Feature | list[Feature] | None = None,
    task: Task | None = None,
    steps: int | None = None,
    verbose: bool = True,
) -> Choice:
    """Train a few candidates, the student alone among them, and choose the best.

    A teacher helps on most data and hurts on some, and the best temperature differs
    from one data set to the next. Validation rows can tell. They have labels, `train`
    must not use them, and they should come from other people or places than the rows to
    train on, as the rows of later use do.

    ```python
    def train(distiller):
        distiller.compile("adam", loss)
        distiller.fit({"teacher": optical, "student": radar}, labels, epochs=20)


    choice = keras_dskd.choose(teacher, build_student, train, (radar_val, labels_val))
    choice.student.save("student.keras")
    ```

    By default, the candidates are the student alone, soft targets at temperatures 1
    and 4, and `keras_dskd.recommended` at temperatures 1 and 4. In a regression, which
    has no temperature, they are the student alone, `RegressionTargets`, and
    `recommended`. With one seed, all start from the same weights and draw the same
    random numbers: before `build_student` and before `train`, the seed is set by
    `keras.utils.set_random_seed`.

    The candidate with the highest mean score is chosen. Unless `verbose` is false, each
    score is printed, and then the table of `Choice.summary`: it shows with an interval
    what the teacher is good for.

    Args:
        teacher: A trained `keras.Model` for the strong modality. Or a dict of several,
            if `candidates` are given.
        build_student: Function that returns a new student.
        train: Function that compiles and trains the distiller that it gets. For the
            student alone, this is a distiller with `student_loss_weight=1`. It takes
            the same pairs as the others, and does not run the teacher.
        validation_data: `(x, y)`: the student's input, or pairs as `fit` takes them,
            and their labels, as arrays.
        candidates: Maps names to functions of `(teacher, student)` that return the
            distiller to train. The others are compared with the first one.
        score: Function of labels and predictions that returns one number per row. The
            higher, the better. By default the task decides: whether classes are
            right, or labels (at a probability of one half), or minus the squared error.
            Each is a mean over the entries of a row.
        seeds: Number of trainings of each candidate, each from other weights.
        intermediate_features: Passed to `recommended`.
        task: Passed to the recipes. With `None`, the models or the compiled loss
            decide.
        steps: Passed to `recommended`: the planned number of training steps.
        verbose: Whether to print scores and the table.

    Returns:
        A `Choice`.

    Raises:
        ValueError: If validation rows are missing, or do not fit their labels;
            `build_student` returns a model that it returned before; or scores are not
            one finite number per row.
    """
    x, y = _arrays(validation_data)
    _check_arguments(build_student, train, candidates, seeds)
    recipe = functools.partial(
        recommended, intermediate_features=intermediate_features, task=task, steps=steps
    )
    if candidates is None:
        # Prints the layers that the recipe picks. If it does not fit the models, it
        # raises an error before the first training.
        recipe(teacher, _built(build_student))
    students: list[keras.Model] = []
    trained: dict[str, Distiller] = {}
    scores: dict[str, list[NDArray[Any]]] = {}

    def run(name: str, seed: int) -> None:
        keras.utils.set_random_seed(seed)
        student = _built(build_student)
        if any(student is other for other in students):
            raise ValueError("`build_student` must return a new model at each call.")
        students.append(student)
        distiller = _silently(makers[name], teacher, student)
        if not isinstance(distiller, Distiller):
            raise ValueError(
                f"The candidate {name!r} must return a `keras_dskd.Distiller`. "
                f"Received: {distiller!r}"
            )
        keras.utils.set_random_seed(seed)
        train(distiller)
        if not distiller.compiled:
            raise ValueError("`train` must compile and fit the distiller that it gets.")
        predictions = student.predict(x, verbose=0)
        found = row_scores(score or default_score(distiller), y, predictions)
        trained.setdefault(name, distiller)
        scores.setdefault(name, []).append(found)
        if verbose:
            print(f"seed {seed}, {name}: {found.mean():.4f}")

    makers: dict[str, Candidate] = dict(candidates or {})
    if candidates is None:
        makers[ALONE] = functools.partial(alone, task=task)
        run(ALONE, 0)
        # Its compiled loss has decided the task of the others.
        makers |= with_teacher(trained[ALONE], recipe, task)
    for seed, name in itertools.product(range(seeds), makers):
        if len(scores.get(name, ())) == seed:
            run(name, seed)
    by_name = {name: np.stack(found) for name, found in scores.items()}
    best = max(by_name, key=lambda name: by_name[name].mean())
    choice = Choice(best, makers[best], trained[best], by_name)
    if verbose:
        choice.summary()
    return choice


def _check_arguments(
    build_student: Any, train: Any, candidates: Any, seeds: Any
) -> None:
    """Raises `ValueError` for arguments of wrong types."""
    for name, function in (("build_student", build_student), ("train", train)):
        if not callable(function) or isinstance(function, keras.Model):
            raise ValueError(
                f"`{name}` must be a function. Received: {type(function).__name__}"
            )
    if not isinstance(seeds, int) or seeds < 1:
        raise ValueError(
            f"`seeds` must be a whole number, 1 or more. Received: seeds={seeds!r}"
        )
    if candidates is not None and not (isinstance(candidates, Mapping) and candidates):
        raise ValueError(
            "`candidates` must be a dict of at least one name and function of "
            f"`(teacher, student)`. Received: {candidates!r}"
        )


def _built(build_student: Callable[[], keras.Model]) -> keras.Model:
    """A new student.

    Raises:
        ValueError: If it is no model.
    """
    student = build_student()
    if not isinstance(student, keras.Model):
        raise ValueError(
            "`build_student` must return a `keras.Model`. Received: "
            f"{type(student).__name__}"
        )
    return student


def _silently(make: Candidate, *models: Any) -> Distiller:
    """What a candidate makes. Recipes print the same layers each time."""
    with contextlib.redirect_stdout(io.StringIO()):
        return make(*models)


def _arrays(validation_data: tuple[Nested, Any]) -> tuple[Nested, Any]:
    """The student's input and labels of the validation rows."""
    if not isinstance(validation_data, tuple) or len(validation_data) != 2:
        raise ValueError(
            "`validation_data` must be a tuple `(x, y)` of arrays. Received: "
            f"{type(validation_data).__name__}"
        )
    x, y = validation_data
    x = keras.tree.map_structure(sliceable, pairs.split(x).student)
    y = keras.tree.map_structure(sliceable, y)
    counts = {row_count(array) for array in keras.tree.flatten((x, y))}
    if len(counts) != 1 or counts & {None, 0}:
        raise ValueError(
            "`validation_data` must have arrays with one row per sample, and as many "
            f"labels. Received numbers of rows: {sorted(counts, key=str)}"
        )
    return x, y
