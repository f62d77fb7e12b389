"""What layers add is kept in a list of each replica, for as long as it asks."""

from unittest import mock

import keras

from keras_dskd.distiller import added_losses
from keras_dskd.internal import replicas


def test_one_list_within_another_leaves_it_in_place():
    layer = keras.layers.Dense(2)
    with mock.patch.object(replicas, "current", lambda: "others"):
        with added_losses.per_replica_losses(layer) as outer:
            with added_losses.per_replica_losses(layer) as inner:
                layer.add_loss(1.0)
            layer.add_loss(2.0)
        assert (outer, inner) == ([2.0], [1.0])
    assert "add_loss" not in vars(layer)
