"""Results that several losses of a step need are computed once."""

import threading

import keras
import numpy as np
import pytest
import reference

from keras_dskd import losses, ops
from keras_dskd.ops.sharing import shared, sharing

on_torch = pytest.mark.skipif(
    keras.backend.backend() != "torch",
    reason="this backend's compiler removes duplicate computations",
)


@pytest.fixture
def counted():
    calls = []

    @shared
    def double(x, factor=2, mask=None):
        calls.append(factor)
        return x * factor

    return double, calls


@on_torch
def test_equal_arguments_are_computed_once_within_a_context(counted):
    double, calls = counted
    x = keras.ops.ones(3)

    with sharing():
        assert double(x) is double(x)
        double(x, 3)
        double(x, factor=3)
        double(keras.ops.ones(3))

    assert calls == [2, 3, 2]


def test_nothing_is_shared_outside_of_a_context(counted):
    double, calls = counted
    x = keras.ops.ones(3)

    double(x)
    with sharing():
        double(x)
    with sharing():
        double(x)

    assert len(calls) == 3


@on_torch
def test_an_inner_context_shares_with_the_outer_one(counted):
    double, calls = counted
    x = keras.ops.ones(3)

    with sharing():
        with sharing():
            double(x)
        double(x)

    assert len(calls) == 1


def test_a_context_ends_with_an_error(counted):
    double, calls = counted
    x = keras.ops.ones(3)

    with pytest.raises(RuntimeError, match="of the user"):
        with sharing():
            double(x)
            raise RuntimeError("of the user")
    double(x)

    assert len(calls) == 2


def test_each_thread_has_its_own_context(counted):
    double, calls = counted
    x = keras.ops.ones(3)

    with sharing():
        double(x)
        thread = threading.Thread(target=double, args=(x,))
        thread.start()
        thread.join()

    assert len(calls) == 2


def test_a_deleted_tensor_is_not_confused_with_a_new_one(counted):
    double, _ = counted

    with sharing():
        results = [float(double(keras.ops.full((), i))) for i in range(50)]

    np.testing.assert_array_equal(results, 2.0 * np.arange(50))


@on_torch
def test_results_without_gradients_are_not_shared_where_gradients_are_needed():
    import torch

    x = torch.ones(3, 2, requires_grad=True)

    with sharing():
        with torch.no_grad():
            ops.rows(x) + ops.normalize(x)
        assert ops.normalize(x).requires_grad
        assert ops.normalize(x) is ops.normalize(x)


def test_arguments_one_and_true_differ(counted):
    double, calls = counted
    x = keras.ops.ones(3)

    with sharing():
        double(x, 1)
        double(x, True)
        double(x, 1.0)

    assert len(calls) == 3


@on_torch
def test_losses_share_standardized_rows(monkeypatch):
    made = []
    rsqrt = keras.ops.rsqrt
    monkeypatch.setattr(keras.ops, "rsqrt", lambda x: made.append(x) or rsqrt(x))
    teacher, student = (
        keras.ops.convert_to_tensor(reference.samples(5, 3, 8, seed=seed), "float32")
        for seed in (0, 1)
    )

    with sharing():
        for loss in (
            losses.ChannelIndependence("a", "a"),
            losses.ChannelIndependence("a", "a", target="self"),
            losses.ChannelAlignment("a", "a"),
        ):
            loss.compute_loss(teacher, student)

    assert len(made) == 2  # One standard deviation each for teacher and student.


def test_shared_results_equal_separate_ones():
    x = keras.ops.convert_to_tensor(reference.samples(5, 8), "float32")

    alone = [float(ops.off_diagonal_energy(x)), float(ops.spatial_uniformity(x))]
    with sharing():
        together = [float(ops.off_diagonal_energy(x)), float(ops.spatial_uniformity(x))]

    assert together == alone


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="only TensorFlow has unknown sizes"
)
def test_a_result_of_one_branch_is_not_shared_outside_of_it():
    import tensorflow as tf

    teacher, student = (
        reference.samples(4, 9, seed=seed).astype("float32") for seed in (0, 1)
    )
    guided = losses.ChannelIndependence()

    @tf.function(input_signature=[tf.TensorSpec([None, 9], tf.float32)] * 2)
    def twice(teacher, student):
        with sharing():
            return guided.compute_loss(teacher, student) + guided.compute_loss(
                teacher, student
            )

    np.testing.assert_allclose(
        float(twice(teacher, student)),
        2.0 * reference.guided_channel_independence(teacher, student),
        rtol=1e-5,
    )
