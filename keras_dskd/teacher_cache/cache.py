"""Runs a teacher over a data set, and opens the finished cache."""

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any, Literal

import keras
import numpy as np
from numpy.typing import NDArray

from keras_dskd.data import arrays
from keras_dskd.features.feature_model import FeatureModel
from keras_dskd.features.identity import dtype_policies, fingerprint
from keras_dskd.features.step_masks import makes_masks, mask_key
from keras_dskd.internal.types import Config, FilePath, Nested, Shard
from keras_dskd.teacher_cache import feature_files, shards
from keras_dskd.teacher_cache import manifest as manifests
from keras_dskd.teacher_cache.feature_files import size_text
from keras_dskd.teacher_cache.inputs import Inputs, by_rows, identity
from keras_dskd.teacher_cache.storage import StorageDtype

# In memory at once: features of about this many bytes and batches, or one batch.
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
    """The features of a built teacher; arguments as in `Distiller.cache_teacher`."""
    arrays.check_batch_size(batch_size)
    verbose = 1 if verbose == "auto" else verbose
    run = _Run(model, batch_size, StorageDtype(dtype), verbose)
    if path is None and shard is None and isinstance(x, keras.utils.PyDataset):
        return run.all_at_once(x)  # `predict` reads ahead, and takes any batch sizes.
    inputs = by_rows(x)
    if path is not None:
        path = shards.shard_path(path, shard)
    if inputs is None and path is None and shard is None:
        return run.all_at_once(x)
    if inputs is None:
        raise ValueError(
            "A cache on disk and a shard need to know the number of samples: pass "
            "arrays (memory-mapped or not) or a PyDataset with a length. Received: "
            f"{type(x).__name__}. Or leave out `path` and `shard`."
        )
    if shard is not None:
        inputs = shards.InputShard(inputs, shard)
    return run.in_memory(inputs) if path is None else run.on_disk(inputs, path, verify)


def open_teacher_cache(
    path: FilePath, verify: bool = True, shard: Shard | None = None
) -> dict[str, Nested]:
    """Opens a cache of `Distiller.cache_teacher`, without distiller or teacher.

    Args:
        path: The folder.
        verify: Whether to read all files and compare their checksums. Lengths and
            headers are always compared.
        shard: `(index, count)` to open one shard of a cache in shards.

    Returns:
        A dict of name -> feature, memory-mapped and read-only: pass it to `fit` or
        `ArrayDataset` as `x["teacher_features"]`.

    Raises:
        ValueError: If the folder holds no cache, the cache is unfinished, a file is
            damaged, or the cache is divided into other shards.
    """
    path = shards.shard_path(path, shard)
    manifest = manifests.read_manifest(path)
    if manifest is None:
        raise ValueError(f'There is no teacher cache in "{path}".')
    if not _is_finished(manifest):
        raise ValueError(
            f'The teacher cache in "{path}" is not finished: '
            f"{manifest['finished_rows']} of {manifest['data']['samples']} rows. Call "
            "`cache_teacher` with the same arguments again to resume it."
        )
    return _open(path, manifest, verify)


def _open(path: str, manifest: Config, verify: bool) -> dict[str, Nested]:
    def mapped(file: feature_files.FeatureFile) -> NDArray[Any]:
        file.check(manifest["finished_rows"], contents=verify)
        return file.mapped()

    files = feature_files.open_files(path, manifest)
    features = keras.tree.map_structure(mapped, files)
    names = manifest["layers"]
    return {
        key: features[key] for key in (*names, *map(mask_key, names)) if key in features
    }


def _is_finished(manifest: Config) -> bool:
    return manifest["finished_rows"] == manifest["data"]["samples"]


class _Run:
    """One run of a teacher, with its options."""

    def __init__(
        self, model: FeatureModel, batch_size: int, storage: StorageDtype, verbose: int
    ) -> None:
        self.model, self.storage = model, storage
        self.batch_size, self.verbose = batch_size, verbose

    def all_at_once(self, x: Nested) -> dict[str, Nested]:
        features = self.storage.cast(
            self.model.predict(x, batch_size=self.batch_size, verbose=self.verbose),
            self.model.names,
        )
        self._print_rounding()
        return features

    def in_memory(self, inputs: Inputs) -> dict[str, Nested]:
        cached: dict[str, Nested] = {}
        for start, features in self._chunks(inputs, 0):
            if not cached:
                cached = keras.tree.map_structure(
                    lambda rows: np.empty(
                        (inputs.samples, *rows.shape[1:]), rows.dtype
                    ),
                    features,
                )
                size = sum(array.nbytes for array in keras.tree.flatten(cached))
                self._print_size(f"{size_text(size)} in memory", size, inputs.samples)
            for array, rows in zip(
                *map(keras.tree.flatten, (cached, features)), strict=True
            ):
                array[start : start + len(rows)] = rows
        self._print_rounding()
        return cached

    def on_disk(self, inputs: Inputs, path: str, verify: bool) -> dict[str, Nested]:
        expected = {
            "format": manifests.FORMAT,
            "teacher": {
                "name": self.model.model.name,
                "fingerprint": fingerprint(self.model.model),
                "dtype_policies": dtype_policies(self.model.model),
            },
            "layers": sorted(self.model.names),
            "pooled": sorted(self.model.pooled),
            "dtype": self.storage.dtype,
            "step_masks": True,
            "data": identity(inputs),
            "finished_rows": 0,
            "rounding": {},
        }
        manifest = manifests.read_matching(path, expected)
        if manifest and "step_masks" not in manifest and makes_masks(self.model.model):
            raise ValueError(
                f'The teacher cache in "{path}" was made by a version that counted '
                "padded steps, and the teacher masks them. Pass another `path`, or "
                "delete the folder to create the cache again."
            )
        # A finished cache may be on a read-only disk: do not lock it.
        if manifest is None or not _is_finished(manifest):
            with manifests.locked(path):
                manifest = manifests.read_matching(path, expected) or expected
                if not _is_finished(manifest):
                    self._write(inputs, path, manifest)
                    verify = False
        elif self.verbose:
            print(f'Teacher cache: "{path}", {inputs.samples:,} samples, finished.')
        return _open(path, manifest, verify)

    def _write(self, inputs: Inputs, path: str, manifest: Config) -> None:
        writer = None
        self.storage.rounding = manifest["rounding"]
        with contextlib.ExitStack() as stack:
            for _, features in self._chunks(inputs, manifest["finished_rows"]):
                if writer is None:
                    _set_entries(manifest, features)
                    writer = feature_files.CacheWriter(path, manifest)
                    stack.callback(writer.close)
                    self._print_size(
                        f'{size_text(writer.size)} in "{path}"',
                        writer.size,
                        inputs.samples,
                        manifest["finished_rows"],
                    )
                    writer.open()
                writer.append(keras.tree.flatten(features), self.storage.rounding)
        self._print_rounding()

    def _chunks(
        self, inputs: Inputs, start: int
    ) -> Iterator[tuple[int, dict[str, Nested]]]:
        """Runs the teacher on some batches at once; yields `(first row, features)`."""
        batch_size = inputs.batch_size or self.batch_size
        first, batches = start, 1
        bar = keras.utils.Progbar(
            inputs.samples - first, verbose=self.verbose, unit_name="sample"
        )
        while start < inputs.samples:
            x = inputs.rows(start, min(start + batches * batch_size, inputs.samples))
            # `predict_on_batch` would not use several devices.
            features = self.model.predict(x, batch_size=batch_size, verbose=0)
            rows = int(keras.tree.flatten(x)[0].shape[0])
            _check_rows(features, rows)
            yield start, self.storage.cast(features, self.model.names)
            start += rows
            bar.update(start - first)
            size = sum(map(arrays.size, keras.tree.flatten([x, features])))
            batch_bytes = 4 * size * batch_size / rows
            batches = int(np.clip(_CHUNK_BYTES / batch_bytes, 1, _CHUNK_BATCHES))

    def _print_size(
        self, what: str, size: float, samples: int, finished: int = 0
    ) -> None:
        if self.verbose:
            share = 100 * finished // samples
            done = f", {finished:,} of them finished ({share} %)" if finished else ""
            print(
                f"Teacher cache: {what}, {size_text(size / samples)} per sample, "
                f"{samples:,} samples{done}."
            )

    def _print_rounding(self) -> None:
        if self.verbose:
            for name in self.storage.rounding:
                print(
                    f'Stored as {self.storage.dtype}, "{name}" has a rounding error of '
                    f"{self.storage.relative_error(name):.1e} of its root mean square."
                )


def _set_entries(manifest: Config, features: dict[str, Nested]) -> None:
    """Adds the features' files to a new manifest, or compares them with its files."""
    numbers = itertools.count()

    def new_entries(name: str) -> Nested:
        def entry(array: NDArray[Any]) -> Config:
            shape = (manifest["data"]["samples"], *array.shape[1:])
            return feature_files.new_entry(next(numbers), name, shape, array.dtype)

        return manifests.describe(features[name], entry)

    def layout(entries: Nested) -> Nested:
        return manifests.rebuild({"dict": entries}, lambda e: {**e, "checksums": None})

    entries = {name: new_entries(name) for name in features}
    cached = manifest.setdefault("features", entries)
    if layout(cached) != layout(entries):
        raise ValueError(
            "The teacher's outputs have other shapes or dtypes than the cached ones. "
            f"Cached: {cached}. Received: {entries}. Pass another `path`, or delete "
            "the folder to create the cache again."
        )


def _check_rows(features: dict[str, Nested], rows: int) -> None:
    for name, feature in features.items():
        for array in keras.tree.flatten(feature):
            if array.shape[:1] != (rows,):
                raise ValueError(
                    f'The output "{name}" of the teacher has shape {array.shape} for '
                    f"{rows} samples. A cache needs one row per sample."
                )
