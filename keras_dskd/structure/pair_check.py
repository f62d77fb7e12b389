"""Check that the two modalities of each pair belong together."""

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from numpy.typing import NDArray

from keras_dskd.data import pairs
from keras_dskd.data.arrays import evenly_spaced, row_count, sliceable
from keras_dskd.features.feature_model import FeatureModel
from keras_dskd.features.landmarks import head_input
from keras_dskd.features.taps import OUTPUT
from keras_dskd.features.teachers import Teacher, as_model
from keras_dskd.internal.types import Nested, Role
from keras_dskd.ops.labels import remove_class_axis


@dataclass(frozen=True)
class PairCheck:
    """The result of `check_pairs`.

    Attributes:
        agreement: Distance correlation between the teacher's and the student's
            features, from 0 (independent) to 1.
        by_chance: Mean agreement of the same features over the random pairings.
        p_value: Share of pairings that agree at least as well as the given pairing.
        samples: Number of samples that were compared.
        looks_shuffled: Whether `p_value` is above the level of the test.
    """

    agreement: float
    by_chance: float
    p_value: float
    samples: int
    looks_shuffled: bool


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
    """Warn if the pairs look shuffled: if they agree no better than random pairs.

    This is a permutation test of independence between the teacher's and the student's
    features, which are pooled over positions and standardized per channel. The
    statistic is their distance correlation, which is 0 only for independent features.
    The given pairing is compared with `permutations` random pairings.

    Shuffled pairs pass without a warning with probability `level`. How often good pairs
    cause a false alarm depends on the number of samples and on how much the modalities
    share. False alarms in 100 draws, measured by `examples/benchmarks/pair_check.py`:
    0 with 128 pairs or more on all four image data sets, and 22 with 64 optical/radar
    pairs. With `y`: 0 with 256 pairs or more, and 12 with 128.

    The teacher should be trained. The student may be untrained: features of random
    layers still distinguish the samples.

    Args:
        teacher: The teacher, a built `keras.Model`, or a dict of several. Their outputs
            are then compared together, or the layer that `teacher_layer_name` names.
        student: The student, a built `keras.Model`.
        x: `{"teacher": ..., "student": ...}`, arrays as `fit` takes them. Samples that
            `"teacher_mask"` masks out are ignored, and with `y` also those that
            `"label_mask"` masks out.
        y: Class labels: class indices `(n,)`, or one-hot `(n, classes)`. If given, the
            random pairings only exchange samples within a class. The test then also
            detects pairs that are wrong but share their class, for example when sorted
            data is shifted by one row.
        teacher_layer_name: Layer of the teacher to compare. Defaults to the input of
            the last `Dense` layer, or the final output if there is no such layer.
        student_layer_name: Layer of the student to compare, with the same default.
        level: Significance level of the test, between 0 and 1.
        permutations: Number of random pairings.
        max_samples: Compare at most this many samples, evenly spaced over the data.
            Time and memory grow with its square.
        batch_size: Number of samples per batch.
        seed: Seed of the random pairings.
        verbose: 0 prints nothing; 1 or `"auto"` shows progress bars for the teacher,
            the student and the pairings; 2 prints one line at the end of each.

    Returns:
        A `PairCheck`.

    Raises:
        ValueError: If there are fewer than 8 pairs, the modalities differ in their
            number of samples, a modality does not fit its model, or features are not
            finite.

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
    x_teacher, x_student, *labels = evenly_spaced(
        _samples(pairs.split(x), y), max_samples
    )
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
    classes = (
        remove_class_axis(labels[0]) if labels else np.zeros(len(distances[0]), int)
    )
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

    given = agreement(np.arange(len(classes)))
    others = []
    bar = keras.utils.Progbar(
        permutations, verbose=1 if verbose == "auto" else verbose, unit_name="pairing"
    )
    for _ in range(permutations):
        others.append(agreement(_shuffled_within(classes, random)))
        bar.add(1)
    p_value = (1 + np.sum(np.array(others) >= given)) / (1 + permutations)
    result = PairCheck(
        agreement=float(given),
        by_chance=float(np.mean(others)),
        p_value=float(p_value),
        samples=len(classes),
        looks_shuffled=bool(p_value > level),
    )
    if result.looks_shuffled:
        warnings.warn(
            f"Pairs look shuffled: teacher and student agree ({result.agreement:.3f}) "
            f"no better than random pairs ({result.by_chance:.3f} on average), p = "
            f"{p_value:.3f} > level={level}, {result.samples} samples. Check that row "
            "i of both modalities is the same sample. With few samples, or modalities "
            "that share little, this can be a false alarm.",
            stacklevel=2,
        )
    return result


def _samples(pair: pairs.Pair, y: Nested) -> list[Any]:
    """Arrays of both modalities and labels, without masked-out samples."""
    if pair.teacher is None:
        raise ValueError(
            'Expected x={"teacher": ..., "student": ...}. Received: no x["teacher"]'
        )
    labels = [] if y is None else [np.asarray(sliceable(y))]
    arrays = keras.tree.map_structure(sliceable, [pair.teacher, pair.student, *labels])
    counts = [row_count(array) for array in keras.tree.flatten(arrays)]
    if None in counts:
        raise ValueError(
            "Expected arrays with one row per sample. Received: "
            f"{[type(array).__name__ for array in keras.tree.flatten(arrays)]}"
        )
    given = [pair.teacher_mask, None if y is None else pair.label_mask]
    masks = [np.reshape(sliceable(mask), -1) for mask in given if mask is not None]
    counts += [len(mask) for mask in masks]
    if len(set(counts)) > 1:
        raise ValueError(
            "Both modalities, labels and masks must have the same number of samples. "
            f"Received: {counts}"
        )
    if masks:
        valid = np.flatnonzero(np.all(masks, axis=0))
        arrays = keras.tree.map_structure(lambda array: array[valid], arrays)
        counts = [len(valid)]
    if (counts[0] or 0) < 8:
        raise ValueError(f"At least 8 pairs are needed. Received: {counts[0]}")
    return arrays


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
    features = FeatureModel(
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
