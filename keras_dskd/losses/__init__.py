"""Losses for `Distiller`: thin classes over the formulas in `keras_dskd.ops`."""

from keras_dskd.losses.attention_transfer import AttentionTransfer
from keras_dskd.losses.channel_alignment import ChannelAlignment
from keras_dskd.losses.channel_independence import ChannelIndependence
from keras_dskd.losses.contrastive_distillation import ContrastiveDistillation
from keras_dskd.losses.decoupled_distillation import DecoupledDistillation
from keras_dskd.losses.fitnet import FitNet
from keras_dskd.losses.relational_distillation import RelationalDistillation
from keras_dskd.losses.similarity import CenteredKernelAlignment, SimilarityPreserving
from keras_dskd.losses.soft_targets import SoftTargets
from keras_dskd.losses.spatial_uniformity import SpatialUniformity

__all__ = [
    "AttentionTransfer",
    "CenteredKernelAlignment",
    "ChannelAlignment",
    "ChannelIndependence",
    "ContrastiveDistillation",
    "DecoupledDistillation",
    "FitNet",
    "RelationalDistillation",
    "SimilarityPreserving",
    "SoftTargets",
    "SpatialUniformity",
]
