"""The teacher's features on disk are the right ones, or an error says what is wrong."""

import contextlib
import copy
import errno
import functools
import json
import operator
import os
import pickle
import shutil
import stat
import warnings
import zlib
from pathlib import Path

import keras
import numpy as np
import pytest
from cachable import BATCH, FEATURES, N, X, distiller
from keras import ops
from small_models import (
    Counting,
    crossentropy,
    images,
    labels,
    mlp,
    numbers,
    rows,
    standing_still,
)

import keras_dskd
from keras_dskd.features.feature_model import FeatureModel
from keras_dskd.teacher_cache import cache, feature_files
from keras_dskd.teacher_cache import manifest as manifests

STUDENT = images(N, 1, seed=2)
Y = labels(N)

# The same float32 program on batches of other sizes.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def assert_features(received, expected, **tolerance):
    assert list(received) == list(expected) or set(received) == set(expected)
    for name in expected:
        for one, other in zip(
            keras.tree.flatten(received[name]),
            keras.tree.flatten(expected[name]),
            strict=True,
        ):
            np.testing.assert_allclose(one, other, **tolerance)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def live(made, x=X):
    """The teacher's features, computed by Keras alone."""
    outputs = [made.teacher.get_layer(name).output for name in FEATURES[1:]]
    model = keras.Model(made.teacher.input, [made.teacher.output, *outputs])
    return dict(zip(FEATURES, model.predict(x, verbose=0), strict=True))


@contextlib.contextmanager
def teacher_forbidden(monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("The teacher was run.")

    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "predict", forbidden)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A distiller and the folder of its cache. Do not write to it."""
    made = distiller()
    folder = tmp_path_factory.mktemp("finished") / "cache"
    made.cache_teacher(X, folder, BATCH, verbose=0)
    return made, folder


@pytest.fixture
def copied(finished, tmp_path):
    made, folder = finished
    shutil.copytree(folder, tmp_path / "cache")
    return made, tmp_path / "cache"


def stopped(made, folder, monkeypatch, after=2, **kwargs):
    """Writes a cache until an error stops it after some chunks."""
    calls = 0
    predict = keras.Model.predict

    def failing(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls > after:
            raise RuntimeError("Stopped.")
        return predict(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "predict", failing)
        patch.setattr(cache, "_CHUNK_BATCHES", 2)
        with pytest.raises(RuntimeError, match="Stopped"):
            made.cache_teacher(kwargs.pop("x", X), folder, verbose=0, **kwargs)


# Returned features


@pytest.mark.parametrize("batch_size", [1, 4, 36, 37, 100])
@pytest.mark.parametrize("is_on_disk", [False, True])
def test_cache_contains_the_teachers_features(batch_size, is_on_disk, tmp_path):
    made = distiller()
    path = tmp_path / "new" / "cache" if is_on_disk else None
    received = made.cache_teacher(X, path, batch_size, verbose=0)
    assert_features(received, live(made), **CLOSE)
    for feature in received.values():
        assert isinstance(feature, np.memmap) == is_on_disk
        assert feature.dtype == np.float32


def test_opened_cache_equals_the_returned_one(finished):
    made, folder = finished
    received = keras_dskd.open_teacher_cache(folder)
    assert_features(received, made.cache_teacher(X, folder, verbose=0))
    assert_features(received, live(made), **CLOSE)


def test_training_on_a_cache_equals_training_with_the_teacher(tmp_path):
    """The same losses over several shuffled epochs."""

    def fit(**x):
        made = distiller()
        made.compile(keras.optimizers.SGD(0.1), crossentropy())
        if "teacher" not in x:
            x["teacher_features"] = made.cache_teacher(X, **x.pop("cache"), verbose=0)
        keras.utils.set_random_seed(1)
        x["student"] = STUDENT
        return made.fit(x, Y, batch_size=8, epochs=3, verbose=0).history

    expected = fit(teacher=X)
    for kept in ({}, {"path": tmp_path / "cache"}):
        received = fit(cache=kept)
        for name, values in expected.items():
            # float32 through fifteen steps.
            assert received[name] == pytest.approx(values, rel=1e-5, abs=1e-6), name


def pooling(extra=()):
    made = distiller()
    losses = [
        keras_dskd.losses.ChannelAlignment("conv0", "conv0"),
        keras_dskd.losses.ChannelIndependence("conv0", "conv0"),
        keras_dskd.losses.SpatialUniformity("conv0"),
        *extra,
    ]
    return keras_dskd.Distiller(made.teacher, made.student, losses)


def test_feature_map_that_all_losses_pool_is_stored_pooled(tmp_path):
    made = pooling()
    replayed = pooling()

    features = made.cache_teacher(X, tmp_path / "cache", BATCH, verbose=0)

    expected = live(made)["conv0"].mean(axis=(1, 2))
    np.testing.assert_allclose(features["conv0"], expected, **CLOSE)
    histories = []
    for other, x in (
        (made, {"teacher": X, "student": STUDENT}),
        (replayed, {"teacher_features": features, "student": STUDENT}),
    ):
        other.compile(keras.optimizers.SGD(0.1), crossentropy())
        history = other.fit(x, Y, batch_size=16, epochs=2, shuffle=False, verbose=0)
        histories.append(history.history)
    for name, values in histories[0].items():
        np.testing.assert_allclose(histories[1][name], values, rtol=1e-4, atol=1e-5)


def test_feature_map_that_one_loss_reads_whole_is_stored_whole(tmp_path):
    whole = pooling([keras.distillation.FeatureDistillation("mse", "conv0", "conv0")])

    features = whole.cache_teacher(X, verbose=0)

    np.testing.assert_allclose(features["conv0"], live(whole)["conv0"], **CLOSE)
    pooling().cache_teacher(X, tmp_path / "cache", verbose=0)
    with pytest.raises(ValueError, match=r"pooled layers: cached .*conv0.*received"):
        whole.cache_teacher(X, tmp_path / "cache", verbose=0)


def test_shuffled_cache_stays_paired(tmp_path):
    """The teacher's output is the student's input; any other pairing shows."""
    made, x = identity_distiller()
    features = made.cache_teacher(x, tmp_path / "cache", verbose=0)
    cached = {"student": x, "teacher_features": features}
    history = made.fit(cached, batch_size=4, epochs=2, verbose=0).history
    assert history["loss"] == [0.0, 0.0]
    data = keras_dskd.ArrayDataset(cached, batch_size=4)
    assert made.fit(data, epochs=2, verbose=0).history["loss"] == [0.0, 0.0]


def identity_distiller(n=32):
    inputs = keras.Input((1,))
    teacher = keras.Model(inputs, keras.layers.Rescaling(1.0)(inputs))
    other = keras.Input((1,))
    student = keras.Model(
        other, keras.layers.Dense(1, kernel_initializer="ones")(other)
    )
    made = keras_dskd.Distiller(
        teacher,
        student,
        keras.distillation.FeatureDistillation(),
        student_loss_weight=0.0,
    )
    made.compile(standing_still())
    return made, np.arange(float(n), dtype="float32")[:, None]


def two_outputs(width, name, seed=0, **outputs):
    inputs = keras.Input((width,))
    kernel = keras.initializers.GlorotUniform(seed)
    first = keras.layers.Dense(3, name="first", kernel_initializer=kernel)(inputs)
    second = keras.layers.Dense(2, name="second", kernel_initializer=kernel)(inputs)
    both = {"one": first, "two": second} if outputs else [first, second]
    return keras.Model(inputs, both, name=name)


@pytest.mark.parametrize("is_dict", [False, True], ids=["list", "dict"])
@pytest.mark.parametrize("is_on_disk", [False, True])
def test_outputs_with_several_arrays_train(is_dict, is_on_disk, tmp_path):
    kind = {"dict": True} if is_dict else {}
    loss = {"one": "mse", "two": "mse"} if is_dict else ["mse", "mse"]

    def made():
        distiller = keras_dskd.Distiller(
            two_outputs(6, "teacher", seed=1, **kind),
            two_outputs(4, "student", **kind),
            keras.distillation.FeatureDistillation(loss),
            student_loss_weight=0.0,
        )
        distiller.compile(keras.optimizers.SGD(0.1))
        return distiller

    x = {"teacher": rows(N, 6), "student": rows(N, 4)}
    options = {"batch_size": 8, "epochs": 2, "shuffle": False, "verbose": 0}
    expected = made().fit(x, **options).history["loss"]
    caching = made()
    path = tmp_path / "cache" if is_on_disk else None
    features = caching.cache_teacher(x["teacher"], path, verbose=0)
    cached = {"student": x["student"], "teacher_features": features}
    received = caching.fit(cached, **options).history["loss"]
    assert received == pytest.approx(expected, rel=1e-5)
    data = keras_dskd.ArrayDataset(cached, batch_size=8, shuffle=False)
    received = made().fit(data, epochs=2, shuffle=False, verbose=0).history["loss"]
    assert received == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("is_on_disk", [False, True])
def test_inputs_may_be_several_arrays_or_pairs(is_on_disk, tmp_path):
    one, two = keras.Input((2,), name="one"), keras.Input((3,), name="two")
    logits = keras.layers.Dense(3)(keras.layers.Concatenate()([one, two]))
    teacher = keras.Model({"one": one, "two": two}, logits)
    made = keras_dskd.Distiller(teacher, mlp(4), keras_dskd.losses.SoftTargets())
    x = {"one": rows(N, 2), "two": rows(N, 3)}
    expected = {"(output)": teacher.predict(x, verbose=0)}
    path = tmp_path / "cache" if is_on_disk else None
    for given in (x, {"teacher": x, "student": rows(N, 4)}):
        assert_features(made.cache_teacher(given, path, verbose=0), expected, **CLOSE)


def sparse_matrix():
    sparse = pytest.importorskip("scipy.sparse", reason="SciPy is not installed")
    return sparse.csr_matrix(np.eye(4, dtype="float32"))


def ragged_tensor():
    tensorflow = pytest.importorskip("tensorflow", reason="ragged tensors are its own")
    return tensorflow.ragged.constant([[1.0], [1.0, 2.0], [3.0], [4.0]])


@pytest.mark.backend_neutral
@pytest.mark.parametrize("is_on_disk", [False, True])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (sparse_matrix, "csr_matrix. Convert it to a dense array first, by .toarray"),
        (ragged_tensor, "RaggedTensor. Convert it to a dense array first, by .to_tens"),
    ],
    ids=["sparse", "ragged"],
)
def test_sparse_and_ragged_inputs_are_refused(make, message, is_on_disk, tmp_path):
    made = keras_dskd.Distiller(mlp(4), mlp(4), keras_dskd.losses.SoftTargets())
    path = tmp_path / "cache" if is_on_disk else None
    with pytest.raises(ValueError, match=message):
        made.cache_teacher(make(), path, verbose=0)


@pytest.mark.backend_neutral
def test_python_objects_are_not_cached_on_disk(tmp_path):
    texts = np.array([["a"], ["b"]], dtype=object)
    model = FeatureModel(mlp(4), ("(output)",))
    with pytest.raises(ValueError, match="of Python objects.*astype"):
        cache.cache_features(model, texts, tmp_path / "cache", verbose=0)


@pytest.mark.backend_neutral
def test_single_sample_is_cached(tmp_path):
    made = distiller()
    received = made.cache_teacher(X[:1], tmp_path / "cache", verbose=0)
    assert_features(received, live(made, X[:1]), **CLOSE)


def test_teacher_runs_once_per_sample_and_is_unchanged(tmp_path):
    inputs = keras.Input((4,))
    counting = Counting()
    normed = keras.layers.BatchNormalization()(counting(inputs))
    teacher = keras.Model(inputs, keras.layers.Dense(3)(normed))
    teacher.compile("sgd", "mse")
    made = keras_dskd.Distiller(teacher, mlp(4), keras_dskd.losses.SoftTargets())
    before = teacher.get_weights()
    optimizer = teacher.optimizer
    features = made.cache_teacher(rows(32), tmp_path / "cache", 8, verbose=0)
    made.compile(standing_still(), crossentropy())
    x = {"student": rows(32), "teacher_features": features}
    made.fit(x, labels(32), verbose=0)
    for one, other in zip(teacher.get_weights()[1:], before[1:], strict=True):
        np.testing.assert_array_equal(one, other)
    assert counting.count() == 4
    assert (teacher.optimizer, teacher.compiled) == (optimizer, True)
    assert len(teacher.trainable_variables) == 4
    assert "call" not in vars(counting)


def test_tf_data_is_cached_in_memory_only(tmp_path):
    made = distiller()
    tensorflow = pytest.importorskip("tensorflow", reason="tf.data is not installed")
    data = tensorflow.data.Dataset.from_tensor_slices(X).batch(8)
    assert_features(made.cache_teacher(data, verbose=0), live(made), **CLOSE)
    with pytest.raises(ValueError, match="number of samples.*Or leave out `path`"):
        made.cache_teacher(data, tmp_path / "cache", verbose=0)
    assert not (tmp_path / "cache").exists()


class Batches(keras.utils.PyDataset):
    def __init__(self, x=X, size=5, labelled=True, **kwargs):
        super().__init__(**kwargs)
        self.x, self.size, self.labelled = x, size, labelled

    def __len__(self):
        return -(-len(self.x) // self.size)

    def __getitem__(self, index):
        part = self.x[index * self.size : (index + 1) * self.size]
        return (part, np.zeros(len(part))) if self.labelled else (part,)


@pytest.mark.backend_neutral
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("labelled", [True, False])
def test_cache_of_a_data_set_equals_that_of_its_arrays(workers, labelled, tmp_path):
    made = distiller()
    data = Batches(workers=workers, labelled=labelled)
    received = made.cache_teacher(data, tmp_path / "cache", verbose=0)
    assert_features(received, live(made), **CLOSE)
    # The same rows in another form.
    made.cache_teacher(X, tmp_path / "cache", verbose=0)


@pytest.mark.backend_neutral
@pytest.mark.parametrize("is_on_disk", [False, True])
def test_data_set_of_pairs_caches_the_teachers_modality(is_on_disk, tmp_path):
    class Pairs(Batches):
        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            return {"teacher": x, "student": x[..., :1]}, y

    class Replay(Batches):
        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            return {"student": x[..., :1], "teacher_features": {"gap": x}}, y

    made = distiller()
    path = tmp_path / "cache" if is_on_disk else None
    received = made.cache_teacher(Pairs(), path, verbose=0)
    assert_features(received, live(made), **CLOSE)
    made.cache_teacher(X, path, verbose=0)  # The same cache.
    with pytest.raises(ValueError, match="teacher's modality is missing"):
        made.cache_teacher(Replay(), tmp_path / "other" if path else None, verbose=0)


@pytest.mark.backend_neutral
def test_batches_of_unequal_sizes_are_refused_on_disk(tmp_path):
    class Uneven(Batches):
        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            return (x[:-1], y[:-1]) if index == 2 else (x, y)

    with pytest.raises(ValueError, match="Batch 2 of the PyDataset.*Expected: 5 rows"):
        distiller().cache_teacher(Uneven(), tmp_path / "cache", verbose=0)


@pytest.mark.backend_neutral
def test_outputs_need_one_row_per_sample(tmp_path):
    inputs = keras.Input((4,))
    flat = keras.layers.Lambda(lambda x: ops.reshape(x, (-1, 2)), name="flat")(inputs)
    teacher = keras.Model(inputs, flat)
    made = keras_dskd.Distiller(teacher, mlp(4), keras_dskd.losses.SoftTargets())
    with pytest.raises(ValueError, match=r"\(output\).*\(64, 2\) for 32 samples"):
        made.cache_teacher(rows(32), tmp_path / "cache", verbose=0)


# Opening and resuming


@pytest.mark.backend_neutral
def test_finished_cache_opens_without_running_the_teacher(copied, monkeypatch):
    made, folder = copied
    before = contents(folder)
    with teacher_forbidden(monkeypatch):
        received = made.cache_teacher(X, folder, batch_size=9, verbose=0)
    assert_features(received, live(made), **CLOSE)
    assert contents(folder) == before


@pytest.mark.backend_neutral
def test_read_only_cache_opens(copied, monkeypatch):
    made, folder = copied
    for path in (*folder.iterdir(), folder):
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    opened = open

    def read_only(file, mode="r", *args, **kwargs):
        assert not set(mode) & set("wa+"), f"{file} was opened to write"
        return opened(file, mode, *args, **kwargs)

    with monkeypatch.context() as patch:  # Root may write anyway.
        patch.setattr("builtins.open", read_only)
        received = made.cache_teacher(X, folder, verbose=0)
        keras_dskd.open_teacher_cache(folder)
    folder.chmod(0o755)
    assert not next(iter(received.values())).flags.writeable


@pytest.mark.backend_neutral
def test_cache_resumes_after_a_full_disk(finished, tmp_path, monkeypatch):
    """Rows that reached only some of the files are written again."""
    made, whole = finished
    folder = tmp_path / "cache"
    append = feature_files.append_bytes
    calls = 0

    def filling_up(*args):
        nonlocal calls
        calls += 1
        if calls == 8:  # Three headers and four chunks were written.
            raise OSError(errno.ENOSPC, "No space left on device")
        return append(*args)

    with monkeypatch.context() as patch:
        patch.setattr(cache, "_CHUNK_BATCHES", 2)
        patch.setattr(feature_files, "append_bytes", filling_up)
        with pytest.raises(OSError, match="No space left"):
            made.cache_teacher(X, folder, BATCH, verbose=0)
    made.cache_teacher(X, folder, BATCH, verbose=0)
    assert contents(folder) == contents(whole)


@pytest.mark.backend_neutral
@pytest.mark.parametrize("batch_size", [4, 7])
def test_interrupted_cache_resumes(batch_size, tmp_path, monkeypatch):
    """Rows before an error are kept, whatever the next batch size."""
    made = distiller()
    folder = tmp_path / "cache"
    stopped(made, folder, monkeypatch, batch_size=4)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["finished_rows"] == 12
    received = made.cache_teacher(X, folder, batch_size, verbose=0)
    whole = made.cache_teacher(X, tmp_path / "whole", 4, verbose=0)
    assert_features(received, whole, **({} if batch_size == 4 else CLOSE))


@pytest.mark.backend_neutral
def test_cache_of_a_data_set_resumes_within_a_batch(tmp_path, monkeypatch):
    made = distiller()
    stopped(made, tmp_path / "cache", monkeypatch, batch_size=4)
    received = made.cache_teacher(Batches(size=5), tmp_path / "cache", verbose=0)
    assert_features(received, live(made), **CLOSE)


@pytest.mark.backend_neutral
def test_file_system_without_locks_warns_and_writes(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl", reason="fcntl is not on Windows")

    def unsupported(*args):
        raise OSError(errno.ENOSYS, "Function not implemented")

    made = distiller()
    monkeypatch.setattr(fcntl, "flock", unsupported)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made.cache_teacher(X, tmp_path / "cache", verbose=0)
    assert any("cannot be locked" in str(warning.message) for warning in caught)
    received = keras_dskd.open_teacher_cache(tmp_path / "cache")
    assert_features(received, live(made), **CLOSE)


@pytest.mark.backend_neutral
def test_two_processes_do_not_write_at_once(tmp_path):
    made = distiller()

    class Meanwhile(Batches):
        def __getitem__(self, index):
            if (folder / "manifest.json").exists():
                with pytest.raises(ValueError, match="Another process is writing"):
                    made.cache_teacher(X, folder, verbose=0)
                met.append(index)
            return super().__getitem__(index)

    folder, met = tmp_path / "cache", []
    made.cache_teacher(Meanwhile(), folder, verbose=0)
    assert met


# Another cache


def other_teacher():
    return distiller(seed=6), X


def other_layers():
    made = distiller()
    return keras_dskd.Distiller(
        made.teacher, made.student, keras_dskd.losses.ChannelAlignment("gap", "gap")
    ), X


OTHERS = {
    "teacher": (other_teacher, {}, r"teacher: cached .teacher. with weights \w{8}, "),
    "layers": (other_layers, {}, r"layers: cached .*conv0.*, received \['gap'\]"),
    "count": (
        lambda: (distiller(), X[:36]),
        {},
        "samples: cached 37, received 36",
    ),
    "dtype": (
        lambda: (distiller(), X),
        {"dtype": "float16"},
        "dtype: cached None, received float16",
    ),
    "order": (lambda: (distiller(), X[::-1]), {}, "data: .*other values"),
    "values": (lambda: (distiller(), X * 2), {}, "data: .*other values"),
    "input dtype": (
        lambda: (distiller(), X.astype("float64")),
        {},
        "inputs: cached .*float32.*received.*float64",
    ),
}


@pytest.mark.backend_neutral
@pytest.mark.parametrize("is_finished", [True, False])
@pytest.mark.parametrize("what", OTHERS)
def test_other_cache_is_refused_with_what_differs(
    what, is_finished, finished, tmp_path
):
    make, options, message = OTHERS[what]
    made, x = make()
    folder = tmp_path / "cache"
    shutil.copytree(finished[1], folder)
    if not is_finished:
        halve(folder)
    before = contents(folder)
    with pytest.raises(ValueError, match=f"(?s){message}.*Pass another `path`"):
        made.cache_teacher(x, folder, verbose=0, **options)
    assert {k: v for k, v in contents(folder).items() if k != ".lock"} == before


def test_teacher_with_another_dtype_policy_is_refused(tmp_path):
    """Its float32 weights are equal, but its features are not."""

    def cache(policy):
        made = keras_dskd.Distiller(
            mlp(4, name="teacher", dtype=policy),
            mlp(4),
            keras_dskd.losses.ChannelAlignment("hidden", "hidden"),
        )
        made.cache_teacher(rows(9), tmp_path / "cache", verbose=0)

    cache("float32")
    expected = "dtype policies: cached .*'float32'.*received .*'mixed_bfloat16'"
    with pytest.raises(ValueError, match=expected):
        cache("mixed_bfloat16")


def test_loaded_teacher_matches_the_saved_one(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        inner = keras.Sequential([keras.layers.Dense(5, name="hidden")])
        teacher = keras.Sequential([keras.Input((4,)), inner, keras.layers.Dense(3)])
    finally:
        keras.config.set_dtype_policy("float32")
    teacher.save(tmp_path / "teacher.keras")
    loaded = keras.models.load_model(tmp_path / "teacher.keras")
    for one in (teacher, loaded):
        made = keras_dskd.Distiller(one, mlp(4), keras_dskd.losses.SoftTargets())
        made.cache_teacher(rows(9), tmp_path / "cache", verbose=0)


def halve(folder):
    """Turns a finished cache into one that stopped after 12 rows."""
    manifest = manifests.read_manifest(folder)
    manifest["finished_rows"] = 12
    for entry in manifest["features"].values():
        file = feature_files.FeatureFile(folder, entry)
        os.truncate(file.filepath, file.size(12))
        entry["checksums"] = [zlib.crc32(Path(file.filepath).read_bytes())]
    manifests.write_manifest(folder, manifest)


@pytest.mark.backend_neutral
def test_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("Years of work.")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="holds no teacher cache.*thesis.tex"):
        distiller().cache_teacher(X, tmp_path, verbose=0)
    with pytest.raises(ValueError, match="a folder. Received a file"):
        distiller().cache_teacher(X, tmp_path / "thesis.tex", verbose=0)
    assert contents(tmp_path) == before


@pytest.mark.backend_neutral
def test_folder_without_a_cache_raises(tmp_path):
    with pytest.raises(ValueError, match="There is no teacher cache"):
        keras_dskd.open_teacher_cache(tmp_path / "none")


@pytest.mark.backend_neutral
def test_older_format_is_refused(copied, monkeypatch):
    """Its manifest lacks fields that are compared."""
    made, folder = copied
    manifest = manifests.read_manifest(folder)
    del manifest["pooled"]
    with monkeypatch.context() as patch:
        patch.setattr(manifests, "FORMAT", "keras_dskd teacher cache 1")
        manifests.write_manifest(folder, {**manifest, "format": manifests.FORMAT})
    expected = "of the format 'keras_dskd teacher cache 1'.*delete the folder"
    with pytest.raises(ValueError, match=expected):
        made.cache_teacher(X, folder, verbose=0)
    with pytest.raises(ValueError, match=expected):
        keras_dskd.open_teacher_cache(folder)


# Damage


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.backend_neutral
@pytest.mark.parametrize("place", [0.0, 0.1, 0.5, 0.999])
@pytest.mark.parametrize("number", range(4))
def test_flipped_bit_is_detected(number, place, copied):
    made, folder = copied
    assert len(names(folder)) == 4
    path = folder / names(folder)[number]
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 0b100
    path.write_bytes(content)
    for opening in (
        lambda: made.cache_teacher(X, folder, verbose=0),
        lambda: keras_dskd.open_teacher_cache(folder),
    ):
        with pytest.raises(ValueError, match="is damaged.*|of the format"):
            opening()


@pytest.mark.backend_neutral
@pytest.mark.parametrize("number", range(4))
def test_truncated_missing_or_longer_file_is_detected(number, copied):
    made, folder = copied
    path = folder / names(folder)[number]
    content = path.read_bytes()
    for changed in (content[:-1], content[: len(content) // 2], b"", content + b"x"):
        path.write_bytes(changed)
        for verify in (True, False):
            with pytest.raises(ValueError, match="is damaged"):
                made.cache_teacher(X, folder, verify=verify, verbose=0)
    path.unlink()
    expected = "not empty and holds no" if path.suffix == ".json" else "It has 0 bytes"
    with pytest.raises(ValueError, match=expected):
        made.cache_teacher(X, folder, verbose=0)


@pytest.mark.backend_neutral
@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"null", b"\xff\x00", b"{'a'}"])
def test_unreadable_manifest_is_detected(content, copied):
    made, folder = copied
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(ValueError, match="manifest.json.*cannot be read.*Delete"):
        made.cache_teacher(X, folder, verbose=0)


@pytest.mark.backend_neutral
def test_damage_to_finished_rows_is_detected_when_resuming(tmp_path, monkeypatch):
    made = distiller()
    stopped(made, tmp_path / "cache", monkeypatch, batch_size=4)
    path = next((tmp_path / "cache").glob("*conv0.npy"))
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="conv0.npy.*A checksum differs"):
        made.cache_teacher(X, tmp_path / "cache", verbose=0)


@pytest.mark.backend_neutral
def test_error_names_the_damaged_block(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_files, "_BLOCK", 1000)
    made = distiller()
    stopped(made, tmp_path / "cache", monkeypatch, batch_size=4)
    made.cache_teacher(X, tmp_path / "cache", 4, verbose=0)
    keras_dskd.open_teacher_cache(tmp_path / "cache")
    path = next((tmp_path / "cache").glob("*conv0.npy"))
    content = bytearray(path.read_bytes())
    content[5500] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="differs after byte 5000"):
        keras_dskd.open_teacher_cache(tmp_path / "cache")
    keras_dskd.open_teacher_cache(tmp_path / "cache", verify=False)


@pytest.mark.backend_neutral
def test_manifest_with_files_elsewhere_is_refused(copied):
    _, folder = copied
    manifest = manifests.read_manifest(folder)
    manifest["features"]["gap"]["file"] = "../gap.npy"
    manifests.write_manifest(folder, manifest)
    with pytest.raises(ValueError, match='damaged: .* "file" is wrong. Delete the fol'):
        keras_dskd.open_teacher_cache(folder)


def places(entry, path=()):
    """The paths of all entries of a manifest."""
    items = entry.items() if isinstance(entry, dict) else ()
    items = enumerate(entry) if isinstance(entry, list) else items
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


@pytest.mark.backend_neutral
def test_manifest_with_a_right_checksum_and_wrong_contents_is_refused(copied):
    """Reading one either works or raises `ValueError`, whatever an entry holds."""
    _, folder = copied
    good = manifests.read_manifest(folder)
    wrong = (None, [], {}, "x", "../gap.npy", -1, 3.5, 10**30, {"dict": []}, [[]])
    messages = set()
    for path in places(good):
        for value in (*wrong, "missing"):
            crafted = copy.deepcopy(good)
            parent = functools.reduce(operator.getitem, path[:-1], crafted)
            parent[path[-1]] = value
            if value == "missing":
                del parent[path[-1]]
            manifests.write_manifest(folder, crafted)
            try:
                keras_dskd.open_teacher_cache(folder)
            except ValueError as error:
                messages.add(str(error))
    for name in ('"finished_rows" is wrong', '"shape" is wrong', '"dtype" is wrong'):
        assert any(name in message for message in messages)
    assert {path.name for path in folder.iterdir()} == {
        "manifest.json",
        *(entry["file"] for entry in good["features"].values()),
    }


@pytest.mark.backend_neutral
def test_manifest_of_great_depth_is_refused(copied):
    _, folder = copied
    (folder / "manifest.json").write_text(
        '{"format": ' + "[" * 10**5 + "]" * 10**5 + "}"
    )
    with pytest.raises(ValueError, match="It cannot be read"):
        keras_dskd.open_teacher_cache(folder)


@pytest.mark.backend_neutral
def test_lack_of_room_raises_before_anything_is_written(tmp_path, monkeypatch, capsys):
    usage = type(shutil.disk_usage(tmp_path))(10**9, 10**9, 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="needs .* kB more, and the disk has 10 B free"):
        distiller().cache_teacher(X, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
    assert "kB per sample, 37 samples" in capsys.readouterr().out


@pytest.mark.backend_neutral
def test_files_are_closed_after_an_error(tmp_path, monkeypatch):
    opened = []

    def recording(*args):
        opened.append(open(*args))
        return opened[-1]

    def failing(number):
        if opened:
            raise OSError(errno.EIO, "Input/output error")

    made = distiller()
    monkeypatch.setattr(feature_files, "open", recording, raising=False)
    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="Input/output error"):
        made.cache_teacher(X, tmp_path / "cache", verbose=0)
    assert len(opened) == 3
    assert all(file.closed for file in opened)


# float16


@pytest.mark.parametrize("is_on_disk", [False, True])
def test_float16_reports_its_rounding_error(is_on_disk, tmp_path, capsys):
    made = distiller()
    path = tmp_path / "cache" if is_on_disk else None
    received = made.cache_teacher(X, path, dtype="float16", verbose=1)
    expected = live(made)
    printed = capsys.readouterr().out
    for name, feature in received.items():
        assert feature.dtype == np.float16
        # 10 bits of mantissa. Values below 6e-5 lose more, but little in total.
        np.testing.assert_allclose(feature, expected[name], rtol=2**-11, atol=6e-8)
        error = np.sqrt(
            np.mean((np.float64(feature) - expected[name]) ** 2)
            / np.mean(np.float64(expected[name]) ** 2)
        )
        assert f'"{name}" has a rounding error of {error:.0e}'.split("e-")[1] in printed
        if is_on_disk:
            manifest = json.loads((path / "manifest.json").read_text())
            off, squares = manifest["rounding"][name]
            # The two programs differ by rounding as well.
            assert np.sqrt(off / squares) == pytest.approx(error, rel=0.05)
    assert "37 samples" in printed


def test_losses_of_a_float16_cache_equal_those_of_float32_within_rounding(tmp_path):
    def fit(dtype):
        made = distiller()
        made.compile(standing_still(), crossentropy())
        features = made.cache_teacher(X, tmp_path / str(dtype), dtype=dtype, verbose=0)
        cached = {"student": STUDENT, "teacher_features": features}
        return numbers(made.fit(cached, Y, batch_size=N, verbose=0))

    expected, received = fit(None), fit("float16")
    for name, value in expected.items():
        assert received[name] == pytest.approx(value, rel=2e-3), name
    assert received["feature_distillation"] != expected["feature_distillation"]


@pytest.mark.backend_neutral
def test_values_beyond_float16_are_refused(tmp_path):
    inputs = keras.Input((1,))
    large = keras.layers.Rescaling(1e4, name="large")(inputs)
    made = keras_dskd.Distiller(
        keras.Model(inputs, keras.layers.Dense(3)(large)),
        mlp(4),
        keras.distillation.FeatureDistillation("mse", "large", "hidden"),
    )
    x = np.array([[1.0], [6.6], [np.inf], [np.nan]], "float32")
    expected = '"large" of the teacher reaches 6.6e.04, and float16 ends at 65504'
    for path in (None, tmp_path / "cache"):
        with pytest.raises(ValueError, match=expected):
            made.cache_teacher(x, path, dtype="float16", verbose=0)
    # Values that are not finite stay unchanged.
    received = made.cache_teacher(
        x[[0, 2, 3]], tmp_path / "other", dtype="float16", verbose=0
    )
    np.testing.assert_array_equal(received["large"][:, 0], [1e4, np.inf, np.nan])


def test_features_in_half_precision_are_stored(tmp_path):
    for policy, stored in (("mixed_float16", "float16"), ("mixed_bfloat16", "float32")):
        made = keras_dskd.Distiller(
            mlp(4, name="teacher", dtype=policy),
            mlp(4),
            keras.distillation.FeatureDistillation("mse", "hidden", "hidden"),
        )
        received = made.cache_teacher(rows(9), tmp_path / policy, verbose=0)["hidden"]
        hidden = keras.Model(
            made.teacher.input, made.teacher.get_layer("hidden").output
        )
        expected = np.float32(hidden.predict(rows(9), verbose=0))
        assert received.dtype == stored
        np.testing.assert_allclose(received, expected, rtol=1e-2, atol=1e-3)


@pytest.mark.backend_neutral
@pytest.mark.parametrize("dtype", ["float64", "int8", 16])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(ValueError, match="`dtype` must be None"):
        distiller().cache_teacher(X, dtype=dtype, verbose=0)


@pytest.mark.backend_neutral
@pytest.mark.parametrize("batch_size", [0, -1, 2.5, None])
def test_other_batch_sizes_are_refused(batch_size):
    with pytest.raises(ValueError, match="`batch_size` must be a whole number"):
        distiller().cache_teacher(X, batch_size=batch_size, verbose=0)


@pytest.mark.backend_neutral
def test_empty_and_unequal_inputs_are_refused():
    made = distiller()
    with pytest.raises(ValueError, match=r"at least one. Received: \[0\]"):
        made.cache_teacher(X[:0], verbose=0)
    with pytest.raises(ValueError, match=r"same number.*Received: \[3, 4\]"):
        cache.cache_features(FeatureModel(made.teacher, FEATURES), [X[:3], X[:4]])


@pytest.mark.backend_neutral
def test_progress_is_printed_unless_verbose_is_0(tmp_path, capsys):
    made = distiller()
    made.cache_teacher(X, tmp_path / "cache")
    printed = capsys.readouterr().out
    assert "37/37" in printed
    assert "kB per sample, 37 samples" in printed
    made.cache_teacher(X, tmp_path / "silent", verbose=0)
    made.cache_teacher(X, tmp_path / "silent", verbose=0)
    made.cache_teacher(X, verbose=0)
    assert capsys.readouterr().out == ""


@pytest.mark.backend_neutral
def test_resuming_prints_the_finished_share(tmp_path, monkeypatch, capsys):
    made = distiller()
    stopped(made, tmp_path / "cache", monkeypatch, batch_size=4)
    made.cache_teacher(X, tmp_path / "cache", batch_size=4)
    printed = capsys.readouterr().out
    assert "37 samples, 12 of them finished (32 %)." in printed
    assert "25/25" in printed
    made.cache_teacher(X, tmp_path / "cache")
    printed = capsys.readouterr().out
    assert printed == f'Teacher cache: "{tmp_path / "cache"}", 37 samples, finished.\n'


# ArrayDataset

CACHED = {"student": np.arange(10.0)[:, None], "teacher_features": {"a": np.arange(10)}}


def epoch_of(data):
    batches = [data[index] for index in range(len(data))]
    x = [batch[0] for batch in batches]
    student = np.concatenate([part["student"][:, 0] for part in x])
    cached = np.concatenate([part["teacher_features"]["a"] for part in x])
    np.testing.assert_array_equal(student, cached)
    return batches, cached.tolist()


@pytest.mark.backend_neutral
def test_each_epoch_has_all_rows_in_a_new_order():
    data = keras_dskd.ArrayDataset(
        CACHED, np.arange(10), np.arange(10) / 2, batch_size=4, seed=3
    )
    orders = []
    for _ in range(3):
        batches, order = epoch_of(data)
        assert [len(batch[1]) for batch in batches] == [4, 4, 2]
        assert np.concatenate([batch[1] for batch in batches]).tolist() == order
        assert [w * 2 for batch in batches for w in batch[2]] == order
        assert sorted(order) == list(range(10))
        orders.append(order)
        data.on_epoch_end()
    assert orders[0] != orders[1] != orders[2]
    again = keras_dskd.ArrayDataset(CACHED, batch_size=4, seed=3)
    assert epoch_of(again)[1] == orders[0]
    again.epoch = 2
    assert epoch_of(again)[1] == orders[2]
    other = keras_dskd.ArrayDataset(CACHED, batch_size=4, seed=4)
    assert epoch_of(other)[1] != orders[0]


@pytest.mark.backend_neutral
def test_default_seed_follows_set_random_seed():
    orders = []
    for _ in range(2):
        keras.utils.set_random_seed(7)
        orders.append(epoch_of(keras_dskd.ArrayDataset(CACHED))[1])
    assert orders[0] == orders[1]


@pytest.mark.backend_neutral
def test_shuffle_false_keeps_the_order():
    data = keras_dskd.ArrayDataset(CACHED, batch_size=3, shuffle=False)
    for _ in range(2):
        assert epoch_of(data)[1] == list(range(10))
        data.on_epoch_end()


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_fit_reads_each_row_once_per_epoch(workers):
    """Even if one worker reads batches ahead of the step; several may not keep epochs.

    No other ten powers of two have the sum of these ten.
    """
    x = 2.0 ** np.arange(10, dtype="float32")[:, None]
    inputs = keras.Input((1,))
    dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    model = keras.Model(inputs, dense(inputs))
    model.compile(standing_still(), "mean_absolute_error")
    data = keras_dskd.ArrayDataset(
        x, np.zeros((10, 1)), batch_size=4, workers=workers, shuffle=workers < 2
    )
    history = model.fit(data, epochs=4, shuffle=False, verbose=0).history
    assert history["loss"] == pytest.approx([102.3] * 4)


@pytest.mark.backend_neutral
def test_order_lasts_until_all_batches_were_read():
    """With `steps_per_epoch` Keras ends an epoch early, and continues from there."""
    x = 2.0 ** np.arange(8, dtype="float32")[:, None]
    inputs = keras.Input((1,))
    dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    model = keras.Model(inputs, dense(inputs))
    model.compile(standing_still(), "mean_absolute_error")
    data = keras_dskd.ArrayDataset(x, np.zeros((8, 1)), batch_size=2, seed=3)
    loss = model.fit(
        data, steps_per_epoch=2, epochs=4, shuffle=False, verbose=0
    ).history["loss"]
    # Means of four rows each: no other eight powers of two have the sum of these.
    assert [(loss[0] + loss[1]) * 4, (loss[2] + loss[3]) * 4] == [255, 255]
    assert loss[0] != loss[2]
    assert data.epoch == 2


@pytest.mark.backend_neutral
def test_callback_resumes_the_order_of_a_new_data_set():
    def fit(model, **epochs):
        data = keras_dskd.ArrayDataset(x, y, batch_size=2, seed=3)
        tells = keras.callbacks.LambdaCallback(
            lambda epoch, logs: setattr(data, "epoch", epoch)
        )
        model.fit(data, shuffle=False, callbacks=[tells], verbose=0, **epochs)

    def made():
        model = mlp(4)
        model.compile(keras.optimizers.SGD(0.5), crossentropy())
        return model

    x, y = rows(8), labels(8)
    whole, stopped = made(), made()
    fit(whole, epochs=3)
    fit(stopped, epochs=1)
    fit(stopped, initial_epoch=1, epochs=3)
    for one, other in zip(stopped.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.backend_neutral
def test_workers_receive_locations_of_memory_mapped_arrays(tmp_path):
    """Copies of the rows in each process would fill the memory."""
    np.save(tmp_path / "x.npy", np.arange(40000.0).reshape(10000, 4))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    in_memory, with_gaps = mapped[[3, 1]], mapped[:6:2]
    for array in (mapped, mapped[5000:], mapped[5000:][2:9], in_memory, with_gaps):
        data = keras_dskd.ArrayDataset(array, batch_size=len(array), seed=1)
        content = pickle.dumps(data)
        assert len(content) < 2000
        np.testing.assert_array_equal(pickle.loads(content)[0], data[0])


def test_training_on_a_data_set_equals_training_on_its_arrays(finished):
    _, folder = finished
    features = keras_dskd.open_teacher_cache(folder)
    x = {
        "student": STUDENT,
        "teacher_features": features,
        "teacher_mask": np.arange(N) % 5 > 0,
    }
    weights = np.linspace(0.5, 1.5, N).astype("float32")

    def fit(*data, **options):
        made = distiller()
        made.compile(keras.optimizers.SGD(0.1), crossentropy())
        return made.fit(*data, epochs=2, shuffle=False, verbose=0, **options).history

    expected = fit(x, Y, sample_weight=weights, batch_size=8)
    data = keras_dskd.ArrayDataset(x, Y, weights, batch_size=8, shuffle=False)
    received = fit(data)
    for name, values in expected.items():
        assert received[name] == pytest.approx(values, rel=1e-5), name


@pytest.mark.backend_neutral
def test_unequal_numbers_of_rows_are_refused():
    features = {"a": np.arange(9)}
    expected = r"x\[\"student\"\]': \[10\], 'x\[\"teacher_features\"\]': \[9\]"
    with pytest.raises(ValueError, match=expected):
        keras_dskd.ArrayDataset({**CACHED, "teacher_features": features})
    with pytest.raises(ValueError, match="same number of rows.*'y': .3."):
        keras_dskd.ArrayDataset(CACHED, np.arange(3))
    with pytest.raises(ValueError, match="`y` must be arrays.*asarray.*Received: int"):
        keras_dskd.ArrayDataset(CACHED, [0, 1, 0])
    with pytest.raises(ValueError, match="`batch_size` must be"):
        keras_dskd.ArrayDataset(CACHED, batch_size=0)
    with pytest.raises(ValueError, match="`sample_weight` needs `y`"):
        keras_dskd.ArrayDataset(CACHED, sample_weight=np.arange(10))


def test_batch_with_too_few_cached_rows_is_refused():
    made = distiller()
    made.compile(standing_still(), crossentropy(), run_eagerly=True)
    features = made.cache_teacher(X[:7], verbose=0)

    def batches():
        yield {"student": STUDENT[:8], "teacher_features": features}, Y[:8]

    with pytest.raises(ValueError, match="holds 7 samples, and x..student.. 8"):
        made.fit(batches(), steps_per_epoch=1, shuffle=False, verbose=0)


def test_hdf5_data_sets_and_tensors_are_read_by_rows(tmp_path):
    h5py = pytest.importorskip("h5py", reason="Keras comes with h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = np.arange(10.0)
        data = keras_dskd.ArrayDataset(
            {"a": file["x"], "b": ops.arange(10)}, batch_size=4, seed=1
        )
        for index in range(len(data)):
            (x,) = data[index]
            np.testing.assert_array_equal(x["a"], x["b"])
