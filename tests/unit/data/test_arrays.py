"""Rows of arrays of any library."""

import keras
import numpy as np
import pytest

import keras_dskd
from keras_dskd.data import arrays


@pytest.mark.parametrize("kind", ["tensor", "data frame"])
def test_evenly_spaced_rows_of_other_libraries(kind):
    x = np.random.default_rng(0).random((40, 16), "float32")
    if kind == "data frame":
        given = pytest.importorskip("pandas", reason="pandas").DataFrame(x)
    else:
        given = keras.ops.convert_to_tensor(x)
    picked = arrays.evenly_spaced({"a": given, "b": x}, 10)
    np.testing.assert_array_equal(picked["a"], picked["b"])
    assert picked["b"].shape == (10, 16)


@pytest.mark.parametrize("x", [[0.0, 1.0], "images", None, {"a": np.float32(1)}])
def test_evenly_spaced_rows_need_arrays(x):
    with pytest.raises(ValueError, match="Expected arrays with one row per sample"):
        arrays.evenly_spaced(x, 10)


def sparse_matrix():
    sparse = pytest.importorskip("scipy.sparse", reason="SciPy is not installed")
    return sparse.csr_matrix(np.eye(4, dtype="float32"))


def ragged_tensor():
    tensorflow = pytest.importorskip("tensorflow", reason="TensorFlow's alone")
    return tensorflow.ragged.constant([[1.0], [1.0, 2.0], [3.0], [4.0]])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (sparse_matrix, r"csr_matrix. Convert it to a dense array first, by .toarray"),
        (ragged_tensor, r"RaggedTensor. Convert it .* by .to_tensor"),
    ],
    ids=["sparse", "ragged"],
)
def test_sparse_and_ragged_arrays_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        keras_dskd.ArrayDataset(make())
    with pytest.raises(ValueError, match=message):
        arrays.evenly_spaced(make(), 10)
