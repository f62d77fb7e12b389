"""Losses that layers add are collected per replica while a context is open."""

from unittest import mock

import keras

from keras_dskd.distiller import added_losses
from keras_dskd.internal import replicas


def test_an_inner_list_does_not_replace_the_outer_one():
    layer = keras.layers.Dense(2)
    with mock.patch.object(replicas, "current", lambda: "others"):
        with added_losses.per_replica_losses(layer) as outer:
            with added_losses.per_replica_losses(layer) as inner:
                layer.add_loss(1.0)
            layer.add_loss(2.0)
        assert (outer, inner) == ([2.0], [1.0])
    assert "add_loss" not in vars(layer)
