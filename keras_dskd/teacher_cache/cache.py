"""The run of a teacher over a data set, and opening what it left."""

import itertools
import os
from collections.abc import Iterator
from typing import Any, Literal

import keras
import numpy as np
from numpy.typing import NDArray

from keras_dskd.data import arrays
from keras_dskd.features.feature_model import FeatureModel
from keras_dskd.features.identity import dtype_policies, fingerprint
from keras_dskd.internal.types import Config, FilePath, Nested, Shard
from keras_dskd.teacher_cache import feature_files, shards
from keras_dskd.teacher_cache import manifest as manifests
from keras_dskd.teacher_cache.feature_files import size_text
from keras_dskd.teacher_cache.inputs import Inputs, by_rows, identity
from keras_dskd.teacher_cache.storage import Storage

# What is in memory at once: features of so many bytes, or one batch.
_CHUNK_BYTES = 2**26
_CHUNK_BATCHES = 64


def cache_features(
    model: FeatureModel,
    x: Nested,
    path: FilePath | None = None,
    batch_size: int = 32,
    dtype: str | None = None,
    verify: bool = True,
    verbose: int | Literal["auto"] = "auto",
    shard: Shard | None = None,
) -> dict[str, Nested]:
    """Features of a teacher; see `Distiller.cache_teacher`.

    Args:
        model: A `FeatureModel` of the teacher, which is built.
        x: Its input.
        path: Folder to write to, or `None` for arrays in memory.
        batch_size: Samples at once.
        dtype: `None`, `"float32"` or `"float16"`.
        verify: Whether to compare the checksums of a finished cache.
        verbose: As in `keras.Model.predict`.
        shard: `(index, count)`, or `None` for all rows.
    """
    arrays.check_batch_size(batch_size)
    if path is None and isinstance(x, keras.utils.PyDataset):
        inputs = None  # `predict` reads ahead, and takes batches of any sizes.
    else:
        inputs = by_rows(x)
    if path is not None and inputs is None:
        raise ValueError(
            "A cache on disk needs to know the number of samples, to go on where it "
            "was stopped: pass arrays, memory-mapped ones too, or a PyDataset with a "
            f"length. Received: {type(x).__name__}. Or leave out `path`."
        )
    if path is not None:
        path = shards.shard_path(path, shard)
    if shard is not None:
        if inputs is None:
            raise ValueError(
                "A shard needs to know the number of samples: pass arrays, or a "
                f"PyDataset with a length and a `path`. Received: {type(x).__name__}"
            )
        inputs = shards.Part(inputs, shard)
    run = _Run(model, batch_size, dtype, verbose)
    if inputs is None:
        return run.all_at_once(x)
    return run.in_memory(inputs) if path is None else run.on_disk(inputs, path, verify)


def open_teacher_cache(
    path: FilePath, verify: bool = True, shard: Shard | None = None
) -> dict[str, Nested]:
    """Opens what `Distiller.cache_teacher` wrote, without distiller or teacher.

    Args:
        path: The folder.
        verify: Whether to read all files and compare their checksums. Lengths and
            headers are compared in any case.
        shard: `(index, count)` of a cache in shards: its rows alone are opened.

    Returns:
        A dict of name -> feature, memory-mapped and read-only: what `fit` and
        `ArrayDataset` take as `x["teacher_features"]`.

    Raises:
        ValueError: If the folder holds no cache, it is not finished, a file is damaged,
            or the cache is in other shards.
    """
    path = shards.shard_path(path, shard)
    manifest = manifests.read_manifest(path)
    if manifest is None:
        raise ValueError(f'There is no teacher cache in "{path}".')
    if not _is_finished(manifest):
        raise ValueError(
            f'The teacher cache in "{path}" is not finished: '
            f"{manifest['finished_rows']} of {manifest['data']['samples']} rows. The "
            "`cache_teacher` that began it goes on from there."
        )
    return _open(path, manifest, verify)


def _open(path: str, manifest: Config, verify: bool) -> dict[str, Nested]:
    def mapped(entry: Config) -> NDArray[Any]:
        file = feature_files.FeatureFile(path, entry)
        file.check(manifest["finished_rows"], contents=verify)
        return file.mapped()

    features = manifests.rebuild({"dict": manifest["features"]}, mapped)
    return {name: features[name] for name in manifest["layers"]}


def _is_finished(manifest: Config) -> bool:
    return manifest["finished_rows"] == manifest["data"]["samples"]


class _Run:
    def __init__(
        self,
        model: FeatureModel,
        batch_size: int,
        dtype: str | None,
        verbose: int | Literal["auto"],
    ) -> None:
        self.model = model
        self.batch_size = batch_size
        self.verbose = 1 if verbose == "auto" else verbose
        self.storage = Storage(dtype)

    def all_at_once(self, x: Nested) -> dict[str, Nested]:
        features = self.storage.cast(
            self.model.predict(x, batch_size=self.batch_size, verbose=self.verbose),
            self.model.names,
        )
        self._say_costs()
        return features

    def in_memory(self, inputs: Inputs) -> dict[str, Nested]:
        cached: dict[str, Nested] = {}
        for start, features in self._chunks(inputs, 0):
            if not cached:
                cached = keras.tree.map_structure(
                    lambda chunk: np.empty(
                        (inputs.samples, *chunk.shape[1:]), chunk.dtype
                    ),
                    features,
                )
                size = sum(array.nbytes for array in manifests.leaves(cached))
                self._say(f"{size_text(size)} in memory", size, inputs.samples)
            for array, chunk in zip(
                manifests.leaves(cached), manifests.leaves(features), strict=True
            ):
                array[start : start + len(chunk)] = chunk
        self._say_costs()
        return cached

    def on_disk(
        self, inputs: Inputs, path: FilePath, verify: bool
    ) -> dict[str, Nested]:
        path = os.fspath(path)
        wanted = {
            "format": manifests.FORMAT,
            "teacher": {
                "name": self.model.model.name,
                "fingerprint": fingerprint(self.model.model),
                "dtype_policies": dtype_policies(self.model.model),
            },
            "layers": sorted(self.model.names),
            "pooled": sorted(self.model.pooled),
            "dtype": self.storage.dtype,
            "data": identity(inputs),
            "finished_rows": 0,
            "rounding": {},
        }
        manifest = manifests.read_same(path, wanted)
        # A finished cache may be where nobody can write, not even a lock.
        if manifest is None or not _is_finished(manifest):
            with manifests.locked(path):
                manifest = manifests.read_same(path, wanted) or wanted
                if not _is_finished(manifest):
                    self._write(inputs, path, manifest)
                    verify = False
        elif self.verbose:
            print(f'Teacher cache: "{path}", {inputs.samples:,} samples, finished.')
        return _open(path, manifest, verify)

    def _write(self, inputs: Inputs, path: str, manifest: Config) -> None:
        writer = None
        self.storage.rounding = manifest["rounding"]
        try:
            for _, features in self._chunks(inputs, manifest["finished_rows"]):
                if writer is None:
                    _take_entries(manifest, features)
                    writer = feature_files.CacheWriter(path, manifest)
                    self._say(
                        f'{size_text(writer.size)} in "{path}"',
                        writer.size,
                        inputs.samples,
                        manifest["finished_rows"],
                    )
                    writer.open()
                writer.append(
                    manifests.leaves(features), rounding=self.storage.rounding
                )
        finally:
            if writer is not None:
                writer.close()
        self._say_costs()

    def _chunks(
        self, inputs: Inputs, start: int
    ) -> Iterator[tuple[int, dict[str, Nested]]]:
        """The features from a row on, as `(row, features)`, some batches at once."""
        batch_size = inputs.batch_size or self.batch_size
        first, batches = start, 1
        bar = keras.utils.Progbar(
            inputs.samples - first, verbose=self.verbose, unit_name="sample"
        )
        while start < inputs.samples:
            x = inputs.rows(start, min(start + batches * batch_size, inputs.samples))
            # Not `predict_on_batch`, which would not share it out to devices.
            features = self.model.predict(x, batch_size=batch_size, verbose=0)
            rows = int(keras.tree.flatten(x)[0].shape[0])
            _check_rows(features, rows)
            yield start, self.storage.cast(features, self.model.names)
            start += rows
            bar.update(start - first)
            numbers = sum(map(arrays.size, keras.tree.flatten([x, features])))
            batch_bytes = 4 * numbers * batch_size / rows
            batches = int(np.clip(_CHUNK_BYTES / batch_bytes, 1, _CHUNK_BATCHES))

    def _say(self, what: str, size: float, samples: int, finished: int = 0) -> None:
        if self.verbose:
            share = 100 * finished // samples
            done = f", {finished:,} of them finished ({share} %)" if finished else ""
            print(
                f"Teacher cache: {what}, {size_text(size / samples)} a sample, "
                f"{samples:,} samples{done}."
            )

    def _say_costs(self) -> None:
        if self.verbose:
            for name in self.storage.rounding:
                print(
                    f'Stored as {self.storage.dtype}, "{name}" is off by '
                    f"{self.storage.relative_error(name):.1e} of its root mean square."
                )


def _take_entries(manifest: Config, features: dict[str, Nested]) -> None:
    """Puts the files of features into a new manifest, or compares them with its own."""
    samples = manifest["data"]["samples"]
    numbers = itertools.count()

    def entries_of(name: str) -> Nested:
        return manifests.describe(
            features[name],
            lambda array: feature_files.new_entry(
                next(numbers), name, (samples, *array.shape[1:]), array.dtype
            ),
        )

    entries = {name: entries_of(name) for name in manifest["layers"]}
    cached = manifest.setdefault("features", entries)

    def bare(structures: Nested) -> Nested:
        return manifests.rebuild(
            {"dict": structures}, lambda entry: {**entry, "checksums": None}
        )

    if bare(cached) != bare(entries):
        raise ValueError(
            "The teacher's outputs have other shapes or dtypes than those that were "
            f"cached before. Cached: {cached}. Received: {entries}. Pass another "
            "`path`, or delete the folder to make the cache anew."
        )


def _check_rows(features: dict[str, Nested], rows: int) -> None:
    for name, feature in features.items():
        for array in keras.tree.flatten(feature):
            if array.shape[:1] != (rows,):
                raise ValueError(
                    f'The output "{name}" of the teacher has shape {array.shape} for '
                    f"{rows} samples. A cache takes outputs of one row a sample."
                )
