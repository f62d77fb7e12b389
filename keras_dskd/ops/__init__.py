"""The formulas: pure, differentiable, float32 inside, on every Keras backend."""

from keras_dskd.ops.channel_correlation import (
    channel_alignment,
    channel_correlation,
    cross_correlation,
    cross_off_diagonal_energy,
    off_diagonal_energy,
)
from keras_dskd.ops.effective_rank import centered_effective_rank, effective_rank
from keras_dskd.ops.rows import normalize, rows, standardize
from keras_dskd.ops.samples import weighted_mean
from keras_dskd.ops.soft_targets import soft_targets
from keras_dskd.ops.spatial_uniformity import spatial_uniformity

__all__ = [
    "centered_effective_rank",
    "channel_alignment",
    "channel_correlation",
    "cross_correlation",
    "cross_off_diagonal_energy",
    "effective_rank",
    "normalize",
    "off_diagonal_energy",
    "rows",
    "soft_targets",
    "spatial_uniformity",
    "standardize",
    "weighted_mean",
]
