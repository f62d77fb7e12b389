"""A run saved on one backend resumes on any other.

`fixtures/resumed` has a file of each backend. Every backend loads all three files: no
test needs two backends.
"""

import io
import json
import pathlib
import re
import zipfile

import h5py
import keras
import numpy as np
import pytest
import resumable
from small_models import mlp

import keras_dskd

FOLDER = pathlib.Path(__file__).parents[1] / "fixtures" / "resumed"


@pytest.mark.parametrize("as_file", ["distiller", "weights"])
@pytest.mark.parametrize("saved_on", ["jax", "tensorflow", "torch"])
def test_run_saved_on_another_backend_resumes(saved_on, as_file, tmp_path):
    path = FOLDER / f"{saved_on}.keras"
    if as_file == "distiller":
        distiller = keras.models.load_model(path, safe_mode=True)
    else:
        weights = tmp_path / "distiller.weights.h5"
        weights.write_bytes(zipfile.ZipFile(path).read("model.weights.h5"))
        distiller = resumable.distiller()
        distiller.load_weights(weights)
    # Random layers draw different numbers on each backend.
    distiller.student.get_layer("drop").rate = 0.0
    logs = resumable.fit(distiller, 2)
    with np.load(FOLDER / f"{saved_on}.npz") as expected:
        assert set(logs) == set(expected)
        for name, values in logs.items():
            # Eight steps of Adam in float32, which amplifies small differences.
            np.testing.assert_allclose(values, expected[name], rtol=2e-3, atol=1e-4)


def test_file_with_compiled_models_names_no_backend(tmp_path):
    backbone = mlp(4)
    student = keras.Sequential([keras.Input((4,)), backbone], name="outer")
    teacher = mlp(4, name="teacher")
    for model in (teacher, backbone, student):
        model.compile(keras.optimizers.Adam(), "sparse_categorical_crossentropy")
        model.optimizer.build(model.trainable_variables)
    outer = keras_dskd.Distiller(teacher, student, keras_dskd.losses.SoftTargets())
    outer.compile(keras.optimizers.SGD())
    outer.save(tmp_path / "distiller.keras")
    config = zipfile.ZipFile(tmp_path / "distiller.keras").read("config.json").decode()
    assert config.count('"compile_config"') == 4
    assert not re.findall(r"[\w.]*backend[\w.]*", config)
    loaded = keras.models.load_model(tmp_path / "distiller.keras", safe_mode=True)
    assert isinstance(loaded.teacher.optimizer, keras.optimizers.Adam)


def layout(content):
    """Shape and dtype of each array in a weights file."""
    found = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            found[name] = (item.shape, item.dtype)

    with h5py.File(io.BytesIO(content)) as file:
        file.visititems(visit)
    return found


@pytest.mark.every_backend
def test_files_saved_now_have_the_format_of_those_that_every_backend_loads(tmp_path):
    distiller = resumable.distiller()
    resumable.fit(distiller, 1)
    distiller.save(tmp_path / "distiller.keras")
    distiller.save_weights(tmp_path / "distiller.weights.h5")
    saved = zipfile.ZipFile(tmp_path / "distiller.keras")
    committed = zipfile.ZipFile(FOLDER / f"{keras.backend.backend()}.keras")
    expected = layout(committed.read("model.weights.h5"))
    assert len(expected) > 30
    assert layout(saved.read("model.weights.h5")) == expected
    assert layout((tmp_path / "distiller.weights.h5").read_bytes()) == expected
    config, other = (
        json.loads(file.read("config.json")) for file in (saved, committed)
    )
    for part in ("config", "compile_config"):
        assert set(config[part]) == set(other[part])
