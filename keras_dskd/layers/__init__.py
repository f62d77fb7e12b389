"""REGULARIZE: identity layers that improve a feature's structure, for any Keras model.

Each returns its input and, in training, adds a formula of `keras_dskd.ops` to the
model's loss. No teacher or Distiller is needed. In the Distiller they count as part of
the student's own loss.
"""

from keras_dskd.layers.channel_independence import ChannelIndependence
from keras_dskd.layers.spatial_uniformity import SpatialUniformity

__all__ = ["ChannelIndependence", "SpatialUniformity"]
