"""Losses for `Distiller`: thin classes over the formulas in `keras_dskd.ops`."""

from keras_dskd.losses.channel_alignment import ChannelAlignment
from keras_dskd.losses.channel_independence import ChannelIndependence
from keras_dskd.losses.soft_targets import SoftTargets
from keras_dskd.losses.spatial_uniformity import SpatialUniformity

__all__ = [
    "ChannelAlignment",
    "ChannelIndependence",
    "SoftTargets",
    "SpatialUniformity",
]
