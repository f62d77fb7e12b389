"""Check that the two modalities of each pair belong together."""

import math
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from numpy.typing import NDArray

from keras_dskd.data import pairs
from keras_dskd.data.arrays import evenly_spaced
from keras_dskd.data.some_rows import is_data_set, some_rows
from keras_dskd.features.feature_model import FeatureModel
from keras_dskd.features.landmarks import head_input
from keras_dskd.features.taps import OUTPUT
from keras_dskd.features.teachers import Teacher, as_model
from keras_dskd.internal.types import Nested, Role, Shape
from keras_dskd.ops.rows import as_rows
from keras_dskd.structure.pair_samples import classes_of, samples_of

#: Up to this p-value, shuffled pairs are not the only explanation.
_UNCLEAR = 0.2
#: Numbers of a sample. Larger outputs are averaged over positions.
_LARGE = 4096


@dataclass(frozen=True)
class PairCheck:
    """The result of `check_pairs`.

    Attributes:
        agreement: Distance correlation between the teacher's and the student's
            features, from 0 (independent) to 1.
        by_chance: Mean agreement of the same features over the random pairings.
        p_value: Share of pairings that agree at least as well as the given pairing. The
            smaller, the surer it is that the rows are pairs.
        samples: Number of samples that were compared.
        answer: "paired" if `p_value` is at most the level of the test, "unclear" up to
            0.2, and "shuffled" above.
    """

    agreement: float
    by_chance: float
    p_value: float
    samples: int
    answer: Literal["paired", "unclear", "shuffled"]

    @property
    def looks_shuffled(self) -> bool:
        """Whether the answer is "shuffled"."""
        return self.answer == "shuffled"


def check_pairs(
    teacher: Teacher,
    student: keras.Model,
    x: Nested,
    y: Nested = None,
    teacher_layer_name: str | None = None,
    student_layer_name: str | None = None,
    level: float = 0.01,
    permutations: int = 999,
    max_samples: int = 512,
    batch_size: int = 128,
    seed: int = 0,
    verbose: int | Literal["auto"] = "auto",
) -> PairCheck:
    """Tell whether rows are pairs: whether they agree better than random pairs.

    This is a permutation test of independence between the teacher's and the student's
    features, which are pooled over positions and standardized per channel. The
    statistic is their distance correlation, which is 0 only for independent features.
    The given pairing is compared with `permutations` random pairings.

    There are three answers. The rows are "paired" if at most a share `level` of the
    random pairings agrees as well as they do. They are "shuffled" if more than a fifth
    of them do, and in between it is "unclear". The last two cause a warning. Shuffled
    pairs pass as paired with probability `level`, and are called unclear with
    probability 0.2 - `level`. With few samples, or modalities that share little, good
    pairs can be unclear or look shuffled.
    `examples/benchmarks/accuracy/pair_check.py` measures how often.

    The teacher should be trained. The student may be untrained: features of random
    layers still distinguish the samples.

    Args:
        teacher: The teacher, a built `keras.Model`, or a dict of several. Their outputs
            are then compared together, or the layer that `teacher_layer_name` names.
        student: The student, a built `keras.Model`.
        x: `{"teacher": ..., "student": ...}`, arrays as `fit` takes them, or a data set
            that yields such batches: a `PyDataset`, a `tf.data` data set, or a torch
            `DataLoader`. Labels of a data set are not used. Samples that
            `"teacher_mask"` masks out are ignored, and with `y` also those that
            `"label_mask"` masks out.
        y: Class labels: class indices `(n,)`, or one-hot `(n, classes)`. If given, the
            random pairings only exchange samples within a class. The test then also
            detects pairs that are wrong but share their class, for example when sorted
            data is shifted by one row. Modalities that share no more than the class
            look the same to it: run the test without `y`, too.
        teacher_layer_name: Layer of the teacher to compare. Defaults to the input of
            the last `Dense` layer, or the final output if there is no such layer. A
            layer is averaged over positions, and so are large outputs.
        student_layer_name: Layer of the student to compare, with the same default.
        level: Significance level of the test, between 0 and 1.
        permutations: Number of random pairings.
        max_samples: Compare at most this many samples, evenly spaced over the data. Of
            a data set without a length, the first ones. Time and memory grow with its
            square.
        batch_size: Number of samples per batch.
        seed: Seed of the random pairings.
        verbose: 0 prints nothing; 1 or `"auto"` shows progress bars for the teacher,
            the student and the pairings; 2 prints one line at the end of each.

    Returns:
        A `PairCheck`.

    Raises:
        ValueError: If there are fewer than 8 pairs, the modalities differ in their
            number of samples, a modality does not fit its model, features are not
            finite, or `y` is not one class per sample.

    Source:
        Székely, Rizzo and Bakirov 2007, "Measuring and testing dependence by
        correlation of distances" (arXiv 0803.4101).
    """
    if not 0 < level < 1 or permutations < 1 / level - 1:
        raise ValueError(
            "`level` must be between 0 and 1, and `permutations` at least "
            f"1 / level - 1. Received: level={level}, permutations={permutations}"
        )
    teacher = as_model(teacher)
    if is_data_set(x):
        if y is not None:
            raise ValueError(
                "Pass arrays to use `y`. Received: `y` and a data set, "
                f"{type(x).__name__}"
            )
        x = some_rows(x, max_samples)
    given = pairs.split(x)
    x_teacher, x_student, *labels = evenly_spaced(samples_of(given, y), max_samples)
    if given.teacher is given.student:  # Not a dict of pairs: errors then say so.
        x_student = x_teacher
    compared = pairs.Pair(x_teacher, x_student, None)
    pairs.check_input("teacher", compared, teacher, student)
    pairs.check_input("student", compared, teacher, student)
    distances = [
        _double_centered_distances(_standardized_rows(*read, batch_size, verbose))
        for read in (
            ("teacher", teacher, teacher_layer_name, x_teacher),
            ("student", student, student_layer_name, x_student),
        )
    ]
    classes = classes_of(labels[0]) if labels else np.zeros(len(distances[0]), int)
    _, members = np.unique(classes, return_counts=True)
    if members[members > 1].sum() < 8:
        raise ValueError(
            "At least 8 samples must share their class with another one, because "
            "samples are exchanged within their class. Received: "
            f"{len(members)} classes, {len(classes)} samples"
        )
    scale = np.sqrt(np.prod([np.mean(matrix**2) for matrix in distances]))
    random = np.random.default_rng(seed)

    def agreement(order: NDArray[Any]) -> float:
        squared = np.mean(distances[0] * distances[1][np.ix_(order, order)])
        return np.sqrt(max(squared / scale, 0.0)) if scale > 0 else 0.0

    observed = agreement(np.arange(len(classes)))
    others = []
    bar = keras.utils.Progbar(
        permutations, verbose=1 if verbose == "auto" else verbose, unit_name="pairing"
    )
    for _ in range(permutations):
        others.append(agreement(_shuffled_within(classes, random)))
        bar.add(1)
    p_value = (1 + np.sum(np.array(others) >= observed)) / (1 + permutations)
    result = PairCheck(
        agreement=float(observed),
        by_chance=float(np.mean(others)),
        p_value=float(p_value),
        samples=len(classes),
        answer=_answer(p_value, level),
    )
    if result.answer != "paired":
        warnings.warn(_warning(result, bool(labels)), stacklevel=2)
    return result


def _answer(p_value: float, level: float) -> Literal["paired", "unclear", "shuffled"]:
    if p_value <= level:
        return "paired"
    return "unclear" if p_value <= _UNCLEAR else "shuffled"


def _warning(result: PairCheck, is_within_class: bool) -> str:
    """The text for pairs that are not clearly paired."""
    which = "random pairs of one class" if is_within_class else "random pairs"
    found = (
        f"{result.p_value:.1%} of {which} agree as well as the given pairs "
        f"({result.agreement:.3f}; {result.by_chance:.3f} on average), by "
        f"{result.samples} samples."
    )
    if result.answer == "unclear":
        return (
            f"It is unclear whether the rows are pairs: {found} Check more samples, or "
            "use a better teacher."
        )
    little = "no more than the class" if is_within_class else "too little"
    return (
        f"Pairs look shuffled: {found} Check that row i of both modalities is the same "
        f"sample. If it is, the samples are too few, or the modalities share {little}."
    )


def _standardized_rows(
    role: Role,
    model: keras.Model,
    layer_name: str | None,
    x: Nested,
    batch_size: int,
    verbose: int | Literal["auto"],
) -> NDArray[Any]:
    if layer_name is None:
        try:
            layer_name = head_input(model)
        except ValueError:
            layer_name = OUTPUT
    reads = SmallOutputs if layer_name == OUTPUT else FeatureModel
    features = reads(
        model, [layer_name], pooled={layer_name} - {OUTPUT}, role=role
    ).predict(x, batch_size=batch_size, verbose=verbose)[layer_name]
    rows = np.concatenate(
        [
            np.reshape(feature, (len(feature), -1))
            for feature in keras.tree.flatten(features)
        ],
        axis=1,
    ).astype("float64")
    if not np.isfinite(rows).all():
        raise ValueError(
            "Features must be finite. Received NaN or infinity from "
            f"{layer_name!r} of {model.name!r}."
        )
    spread = rows.std(axis=0)
    return (rows - rows.mean(axis=0)) / np.where(spread > 0, spread, 1.0)


class SmallOutputs(FeatureModel):
    """Averages large outputs over positions in each batch.

    The outputs of a data set, such as classes of pixels, may not fit in memory.
    """

    def call(self, inputs: Nested) -> dict[str, Nested]:
        features = super().call(inputs)
        features[OUTPUT] = keras.tree.map_structure(
            lambda output: as_rows(output) if _is_large(output.shape) else output,
            features[OUTPUT],
        )
        return features


def _is_large(shape: Shape) -> bool:
    return (
        len(shape) > 2
        and math.prod(length or _LARGE + 1 for length in shape[1:]) > _LARGE
    )


def _double_centered_distances(rows: NDArray[Any]) -> NDArray[Any]:
    squares = np.sum(rows**2, axis=1)
    squared = squares[:, None] + squares[None, :] - 2.0 * rows @ rows.T
    distances = np.sqrt(np.maximum(squared, 0.0))
    np.fill_diagonal(distances, 0.0)
    means = distances.mean(axis=0)
    return distances - means[:, None] - means[None, :] + means.mean()


def _shuffled_within(
    classes: NDArray[Any], random: np.random.Generator
) -> NDArray[Any]:
    order = np.arange(len(classes))
    for label in np.unique(classes):
        members = np.flatnonzero(classes == label)
        order[members] = random.permutation(members)
    return order
