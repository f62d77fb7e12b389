"""COMPARE: distillation losses, one file per published loss.

Each is a `keras.distillation.DistillationLoss`: it names a layer of each model, and
compares their outputs with a formula from `keras_dskd.ops`. The losses run in
`keras_dskd.Distiller` and in Keras's Distiller.

    SoftTargets, HardTargets, DecoupledDistillation    class distributions
    BinarySoftTargets                                  independent labels, one sigmoid
    RegressionTargets                                  numbers
    ChannelAlignment, ChannelIndependence, FitNet      features, channel by channel
    SimilarityPreserving, CenteredKernelAlignment,
    RelationalDistillation, ContrastiveDistillation    features, sample by sample
    AttentionTransfer, ChannelWiseDistillation         feature maps, by position
    SpatialUniformity                                  the student's features alone

`output_targets` chooses the loss that fits a task.

To add a loss: write its formula in `ops/`, subclass `LayerLoss` (`base.py`, which
explains the interface), or `OutputLoss` (`output_loss.py`) if it compares predictions,
in a new file, and export it here.
"""

from keras_dskd.losses.attention_transfer import AttentionTransfer
from keras_dskd.losses.binary_soft_targets import BinarySoftTargets
from keras_dskd.losses.channel_alignment import ChannelAlignment
from keras_dskd.losses.channel_independence import ChannelIndependence
from keras_dskd.losses.channel_wise_distillation import ChannelWiseDistillation
from keras_dskd.losses.contrastive_distillation import ContrastiveDistillation
from keras_dskd.losses.decoupled_distillation import DecoupledDistillation
from keras_dskd.losses.fitnet import FitNet
from keras_dskd.losses.hard_targets import HardTargets
from keras_dskd.losses.regression_targets import RegressionTargets
from keras_dskd.losses.relational_distillation import RelationalDistillation
from keras_dskd.losses.similarity import CenteredKernelAlignment, SimilarityPreserving
from keras_dskd.losses.soft_targets import SoftTargets
from keras_dskd.losses.spatial_uniformity import SpatialUniformity

__all__ = [
    "AttentionTransfer",
    "BinarySoftTargets",
    "CenteredKernelAlignment",
    "ChannelAlignment",
    "ChannelIndependence",
    "ChannelWiseDistillation",
    "ContrastiveDistillation",
    "DecoupledDistillation",
    "FitNet",
    "HardTargets",
    "RegressionTargets",
    "RelationalDistillation",
    "SimilarityPreserving",
    "SoftTargets",
    "SpatialUniformity",
]
