"""Files of an earlier version (`fixtures/saved`) load and resume."""

import pathlib
import shutil

import keras
import numpy as np
import pytest

import keras_dskd

FOLDER = pathlib.Path(__file__).parents[1] / "fixtures" / "saved"
EXPECTED = dict(np.load(FOLDER / "expected.npz"))


@pytest.fixture(params=["distiller.keras", "student_side.keras"])
def distiller(request):
    if request.param == "distiller.keras":
        return keras.models.load_model(FOLDER / request.param)
    whole = keras.models.load_model(FOLDER / "distiller.keras")
    return keras_dskd.Distiller.load(FOLDER / request.param, teacher=whole.teacher)


def test_distiller_saved_earlier_predicts_the_same(distiller):
    np.testing.assert_allclose(
        distiller.predict(EXPECTED["radar"], verbose=0),
        EXPECTED["prediction"],
        rtol=1e-4,  # Backends sum convolutions in different orders.
        atol=1e-5,
    )


def test_distiller_saved_earlier_resumes(distiller):
    pairs = {"teacher": EXPECTED["optical"], "student": EXPECTED["radar"]}
    distiller.fit(pairs, EXPECTED["labels"], batch_size=8, shuffle=False, verbose=0)
    np.testing.assert_allclose(
        distiller.predict(EXPECTED["radar"], verbose=0),
        EXPECTED["resumed_prediction"],
        rtol=1e-3,  # AdamW divides by the root of small squares.
        atol=1e-4,
    )


def test_cache_written_earlier_opens_and_replays(tmp_path):
    folder = tmp_path / "cache"
    shutil.copytree(FOLDER / "teacher_cache", folder)
    distiller = keras.models.load_model(FOLDER / "distiller.keras")
    opened = keras_dskd.open_teacher_cache(folder)
    resumed = distiller.cache_teacher(EXPECTED["optical"], folder, verbose=0)
    fresh = distiller.cache_teacher(EXPECTED["optical"], verbose=0)
    assert opened.keys() == resumed.keys() == fresh.keys()
    for name, feature in fresh.items():
        np.testing.assert_allclose(opened[name], feature, rtol=1e-4, atol=1e-5)
    distiller.fit(
        {"teacher_features": opened, "student": EXPECTED["radar"]},
        EXPECTED["labels"],
        batch_size=8,
        shuffle=False,
        verbose=0,
    )
    np.testing.assert_allclose(
        distiller.predict(EXPECTED["radar"], verbose=0),
        EXPECTED["resumed_prediction"],
        rtol=1e-3,
        atol=1e-4,
    )
