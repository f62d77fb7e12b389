"""Do the two modalities belong together, sample by sample?"""

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from numpy.typing import NDArray

from keras_dskd.data import pairs
from keras_dskd.data.arrays import evenly_spaced, row_count, sliceable
from keras_dskd.features.choosing import head_input
from keras_dskd.features.feature_model import FeatureModel
from keras_dskd.features.taps import OUTPUT
from keras_dskd.internal.types import Nested


@dataclass(frozen=True)
class PairCheck:
    """What `check_pairs` found.

    Attributes:
        agreement: Distance correlation of teacher's and student's features, between
            0 (independent) and 1.
        by_chance: Mean agreement of the same features in a random pairing.
        p_value: Share of pairings that agree at least as well as the given one.
        samples: Number of samples looked at.
        looks_shuffled: Whether `p_value` is above the level of the test.
    """

    agreement: float
    by_chance: float
    p_value: float
    samples: int
    looks_shuffled: bool


def check_pairs(
    teacher: keras.Model,
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
    """Warns when pairs look shuffled: when they agree no better than random pairs.

    The test: a permutation test of independence between the teacher's and the
    student's features, both pooled and standardised per channel, whose statistic is
    their distance correlation (which is 0 for independent features alone). The pairing
    is compared with `permutations` random ones. Of shuffled pairs, the share that
    passes without a warning is `level` by construction; how often good pairs are warned
    of depends on how much the modalities share and on the number of samples.
    `examples/benchmarks/pair_check.py` measures both: of 100 draws from each of four
    sets of image pairs none was warned of with 128 pairs or more, and 22 with 64
    pairs of optical and radar images (with `y`: 0 with 256 or more, 12 with 128).

    The student need not be trained: features of random layers still tell which sample
    is which. The teacher should be.

    Args:
        teacher: The teacher, a built `keras.Model`.
        student: The student, a built `keras.Model`.
        x: `{"teacher": ..., "student": ...}`, arrays as `fit` takes them; samples that
            `"teacher_mask"` leaves out are not looked at.
        y: Class labels `(n,)` or one-hot. If given, samples are only exchanged with
            those of the same class: it then takes more than the class to agree, so that
            pairs that are wrong within their class, by one place in sorted data for
            instance, are noticed too.
        teacher_layer_name: Layer to look at. Defaults to the input of the last `Dense`
            layer, or the final output where there is none to be found.
        student_layer_name: The same for the student.
        level: Level of the test, between 0 and 1.
        permutations: Number of random pairings.
        max_samples: Looks at no more samples, evenly spaced; time and memory go with
            their square.
        batch_size: Samples at once through the models.
        seed: Seed of the random pairings.
        verbose: 0 for silence, 1 or `"auto"` for progress bars, of the teacher, the
            student and the pairings; 2 for a line at the end of each.

    Returns:
        A `PairCheck`.

    Raises:
        ValueError: If there are fewer than 8 pairs, or their numbers differ, or a
            modality does not fit its model, or the features are not finite.

    Source:
        Székely, Rizzo and Bakirov 2007, "Measuring and testing dependence by
        correlation of distances" (arXiv 0803.4101).
    """
    if not 0 < level < 1 or permutations < 1 / level - 1:
        raise ValueError(
            "`level` must be between 0 and 1, and `permutations` at least "
            f"1 / level - 1. Received: level={level}, permutations={permutations}"
        )
    x_teacher, x_student, *labels = evenly_spaced(
        _samples(pairs.split(x), y), max_samples
    )
    looked_at = pairs.Pair(x_teacher, x_student, None)
    pairs.check_input("teacher", looked_at, teacher, student)
    pairs.check_input("student", looked_at, teacher, student)
    distances = [
        _centred_distances(_rows(*read, batch_size, verbose))
        for read in (
            (teacher, teacher_layer_name, x_teacher),
            (student, student_layer_name, x_student),
        )
    ]
    classes = _classes(labels[0]) if labels else np.zeros(len(distances[0]), int)
    _, members = np.unique(classes, return_counts=True)
    if members[members > 1].sum() < 8:
        raise ValueError(
            "Samples are exchanged within their class, and `y` leaves fewer than 8 "
            f"that share one. Received: {len(members)} classes, {len(classes)} samples"
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
        others.append(agreement(_exchanged(classes, random)))
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
            f"about as random pairs do ({result.by_chance:.3f} on average): p = "
            f"{p_value:.3f}, above level={level}, of {result.samples} samples. Is row "
            "i of both the same sample? With few samples, or modalities that share "
            "little, good pairs can look so too.",
            stacklevel=2,
        )
    return result


def _samples(pair: pairs.Pair, y: Nested) -> list[Any]:
    """Arrays of both modalities and labels, of the samples that have a teacher."""
    if pair.teacher is None:
        raise ValueError(
            'Pairs are {"teacher": ..., "student": ...}. Received: no x["teacher"]'
        )
    labels = [] if y is None else [np.asarray(sliceable(y))]
    arrays = keras.tree.map_structure(sliceable, [pair.teacher, pair.student, *labels])
    counts = [row_count(array) for array in keras.tree.flatten(arrays)]
    if None in counts:
        raise ValueError(
            "Both modalities and labels are arrays of one row a sample. Received: "
            f"{[type(array).__name__ for array in keras.tree.flatten(arrays)]}"
        )
    if pair.teacher_mask is not None:
        mask = np.reshape(sliceable(pair.teacher_mask), -1)
        there = np.flatnonzero(mask)
        counts.append(len(mask))
    if len(set(counts)) > 1:
        raise ValueError(
            "Both modalities, labels and mask must hold the same samples. Received: "
            f"{counts} samples"
        )
    if pair.teacher_mask is not None:
        arrays = keras.tree.map_structure(lambda array: array[there], arrays)
        counts = [len(there)]
    if (counts[0] or 0) < 8:
        raise ValueError(
            f"At least 8 pairs are needed to judge them. Received: {counts[0]}"
        )
    return arrays


def _rows(
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
        model, [layer_name], pooled={layer_name} - {OUTPUT}
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
            "Features must be finite. Received values that are not, from "
            f"{layer_name!r} of {model.name!r}."
        )
    spread = rows.std(axis=0)
    return (rows - rows.mean(axis=0)) / np.where(spread > 0, spread, 1.0)


def _centred_distances(rows: NDArray[Any]) -> NDArray[Any]:
    squares = np.sum(rows**2, axis=1)
    squared = squares[:, None] + squares[None, :] - 2.0 * rows @ rows.T
    distances = np.sqrt(np.maximum(squared, 0.0))
    np.fill_diagonal(distances, 0.0)
    means = distances.mean(axis=0)
    return distances - means[:, None] - means[None, :] + means.mean()


def _classes(y: NDArray[Any]) -> NDArray[Any]:
    return np.argmax(y, axis=1) if y.ndim == 2 and y.shape[1] > 1 else y.reshape(-1)


def _exchanged(classes: NDArray[Any], random: np.random.Generator) -> NDArray[Any]:
    order = np.arange(len(classes))
    for label in np.unique(classes):
        members = np.flatnonzero(classes == label)
        order[members] = random.permutation(members)
    return order
