"""Identity layers that regularise a feature in any Keras model."""

from keras_dskd.layers.channel_independence import ChannelIndependence
from keras_dskd.layers.spatial_uniformity import SpatialUniformity

__all__ = ["ChannelIndependence", "SpatialUniformity"]
