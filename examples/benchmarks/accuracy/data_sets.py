"""Paired data for `methods.py`: by name or from a file, degraded, split, limited."""

import sys
import zlib
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import degradations
import digits
import optical_to_radar
from compare import PairedData

#: Data sets that ship with scikit-learn.
NAMES = ("digits", "breast_cancer")

VALIDATION_SHARE = 0.2


@dataclass(frozen=True)
class DataSet:
    """Paired data, and information about their origin.

    Attributes:
        name: Name of the data set, or of the file without folder and suffix.
        data: `PairedData`: images in [0, 1], or unchanged sequences and tables.
        scenes: `(n,)` scene, or person, of each training row, or `None`. Validation
            and training share no scene.
        checksum: Checksum of the arrays before degradation. Results from another
            version of the data are never mixed with these.
        degrade: `"name:strength"` of the degradation that made the weak modality from
            the strong one, or `None`.
    """

    name: str
    data: PairedData
    scenes: np.ndarray | None
    checksum: str
    degrade: str | None = None

    @property
    def axes(self):
        """Position axes of a row: 0 for tables, 1 for sequences, 2 for images."""
        return self.data.strong_train.ndim - 2

    @property
    def is_images(self):
        """Whether rows are images."""
        return self.axes == 2


def load(source, degrade=None):
    """Loads a data set.

    Args:
        source: One of `NAMES`, or the path of an `.npz` file in the format of
            `optical_to_radar.py`, with images, sequences or tables. Its `scene_train`
            or `subject_train` is the scene, or the person, of each training row.
        degrade: `"name:strength"`, with a name from `degradations.py`, to make the weak
            modality from the strong one. It is the same for all seeds.

    Returns:
        A `DataSet`.

    Raises:
        SystemExit: If the data set does not exist or cannot be used.
    """
    scenes = None
    if source == "digits":
        data = digits.load()
    elif source == "breast_cancer":
        data = breast_cancer()
    elif Path(source).suffix == ".npz":
        if not Path(source).is_file():
            raise SystemExit(f"There is no file {source}")
        data = optical_to_radar.load(source)
        with np.load(source, allow_pickle=False) as file:
            names = [n for n in ("scene_train", "subject_train") if n in file]
            scenes = file[names[0]] if names else None
    else:
        raise SystemExit(
            f"--data takes {', '.join(NAMES)} or an .npz file. Received: {source}"
        )
    ranks = {data.strong_train.ndim, data.weak_train.ndim}
    if ranks not in ({4}, {3}, {2}):
        raise SystemExit(
            f"{source}: both modalities must be images (n, height, width, channels), "
            "sequences (n, steps, channels) or tables (n, columns). Received: "
            f"{data.strong_train.shape} and "
            f"{data.weak_train.shape}"
        )
    name = Path(source).stem
    made = DataSet(name, data, scenes, _checksum(data))
    return made if degrade is None else _degraded(made, degrade)


def breast_cancer():
    """Two views of a table: the teacher sees means and worst values of cell measures.

    398 training rows and 171 test rows. The teacher has 20 columns, the student 10
    columns with standard errors. There are 2 classes.
    """
    table = load_breast_cancer()
    is_error = np.array([name.endswith("error") for name in table.feature_names])
    order = stratified_order(table.target, np.random.default_rng(0))
    train, test = np.split(order, [round(0.7 * len(order))])
    strong = table.data[:, ~is_error].astype("float32")
    weak = table.data[:, is_error].astype("float32")
    y = table.target.astype("int32")
    return PairedData(
        strong[train], weak[train], y[train], strong[test], weak[test], y[test]
    )


def split(data_set, on, seed, limit=None):
    """The rows to train on and those to score on.

    Args:
        data_set: A `DataSet`.
        on: `"test"` trains on all training rows and scores on the test rows.
            `"validation"` holds out a fifth of the training rows, trains on the others,
            and scores on that fifth. Test rows are not used.
        seed: Seed for the choice of the fifth and of the rows for `limit`. The fifth
            keeps the class proportions, or consists of whole scenes if these are known.
        limit: Maximum number of training rows. They keep the class proportions.

    Returns:
        `PairedData`, whose test arrays are those to score on. Tables and sequences
        are standardized with the statistics of the training rows.

    Raises:
        SystemExit: If there are fewer training rows than the limit.
    """
    data = data_set.data
    rows, held = _rows_of(data_set, on, seed, limit)
    result = replace(data, **_rows(data, rows, "train"))
    if on == "validation":
        scored = _rows(data, held, "train")
        result = replace(
            result,
            **{key.replace("_train", "_test"): rows for key, rows in scored.items()},
        )
    return result if data_set.is_images else _standardized(result)


def labeled_rows(data_set, on, seed, limit=None, labeled=None, scenes=None):
    """Which training rows have labels: a bool array, or `None` for all.

    Args:
        data_set: A `DataSet`.
        on: As in `split`.
        seed: Seed for the choice, and for `split`.
        limit: As in `split`.
        labeled: Number of rows, or their share if below 1. They keep the class
            proportions.
        scenes: Number of whole scenes, or persons, instead of `labeled`.

    Raises:
        SystemExit: If there are fewer rows, or the scenes are not known.
    """
    if labeled is None and scenes is None:
        return None
    rows, _ = _rows_of(data_set, on, seed, limit)
    rng = np.random.default_rng([3, seed])
    if scenes is not None:
        if data_set.scenes is None:
            raise SystemExit(f"{data_set.name} does not say which scene a row is of.")
        of_rows = data_set.scenes[rows]
        known = np.unique(of_rows)
        if scenes >= len(known):
            raise SystemExit(
                f"--labeled-scenes {scenes}: {data_set.name} has {len(known)} scenes "
                "to train on."
            )
        return np.isin(of_rows, rng.permutation(known)[:scenes])
    count = round(labeled * len(rows)) if labeled < 1 else int(labeled)
    if not 0 < count < len(rows):
        raise SystemExit(
            f"--labeled {labeled}: {data_set.name} has {len(rows)} rows to train on."
        )
    order = stratified_order(data_set.data.y_train[rows], rng)
    return np.isin(np.arange(len(rows)), order[:count])


def _rows_of(data_set, on, seed, limit):
    """The training rows, and the rows held out for validation."""
    y, rng = data_set.data.y_train, np.random.default_rng([1, seed])
    rows, held = np.arange(len(y)), np.arange(0)
    if on == "validation":
        held = _validation_rows(data_set, rng)
        rows = np.setdiff1d(rows, held)
    if limit is not None:
        if not 0 < limit <= len(rows):
            raise SystemExit(
                f"--limit {limit}: {data_set.name} has {len(rows)} rows to train on."
            )
        rows = rows[stratified_order(y[rows], rng)[:limit]]
    return rows, held


def stratified_order(y, rng):
    """Row indices, ordered so that the first k rows keep the class proportions."""
    order = rng.permutation(len(y))
    place = np.empty(len(y))
    for label in np.unique(y):
        rows = order[y[order] == label]
        place[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return order[np.argsort(place[order], kind="stable")]


def _validation_rows(data_set, rng):
    y = data_set.data.y_train
    count = round(VALIDATION_SHARE * len(y))
    if data_set.scenes is None:
        return np.sort(stratified_order(y, rng)[:count])
    scenes = rng.permutation(np.unique(data_set.scenes))
    sizes = np.cumsum([np.sum(data_set.scenes == scene) for scene in scenes])
    held = scenes[: 1 + np.searchsorted(sizes, count)]
    if len(held) == len(scenes):
        raise SystemExit(f"{data_set.name} has too few scenes to hold some back.")
    return np.flatnonzero(np.isin(data_set.scenes, held))


def _rows(data, rows, part):
    keys = [field.name for field in fields(data) if field.name.endswith(part)]
    return {key: getattr(data, key)[rows] for key in keys}


def _standardized(data):
    arrays = {}
    for side in ("strong", "weak"):
        train = getattr(data, f"{side}_train")
        axes = tuple(range(train.ndim - 1))
        mean, spread = train.mean(axis=axes), train.std(axis=axes)
        # A column, or a channel, that does not vary stays 0.
        spread = np.where(spread > 0, spread, 1)
        for part in ("train", "test"):
            key = f"{side}_{part}"
            arrays[key] = (getattr(data, key) - mean) / spread
    return replace(data, **arrays)


def _degraded(data_set, degrade):
    name, _, strength = degrade.partition(":")
    arrays = {}
    try:
        for number, part in enumerate(("train", "test")):
            arrays[f"weak_{part}"] = degradations.degrade(
                getattr(data_set.data, f"strong_{part}"),
                name,
                float(strength),
                np.random.default_rng([0, number]),
            )
    except ValueError as error:
        raise SystemExit(
            f"--degrade {degrade}: {error} Write name:strength, as in speckle:0.5"
        ) from error
    data = replace(data_set.data, **arrays)
    # "speckle:0.5" and "speckle:.50" are the same.
    return replace(data_set, data=data, degrade=f"{name}:{float(strength):g}")


def _checksum(data):
    checksum = 0
    for field in fields(data):
        array = np.ascontiguousarray(getattr(data, field.name))
        checksum = zlib.crc32(array.tobytes(), checksum)
    return f"{checksum:08x}"
