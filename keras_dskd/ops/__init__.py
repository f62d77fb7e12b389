"""FORMULAS: pure, differentiable functions of tensors, on every Keras backend.

All compute in float32. One file per formula, plus what they share:

    rows.py      features -> rows `(n, c)`; standardize, normalize
    samples.py   masked and weighted means, sums across replicas
    step_masks.py  which steps of a sequence are real, and their weights
    grids.py     two feature maps on one grid of positions
    labels.py    labels -> class indices
    paired_outputs.py   two outputs, or an output and labels, in one shape
    paired_logits.py   logits of two models, with the classes last
    checks.py    argument and shape checks
    sharing.py   share intermediate results of several losses in a step (torch)

To add a formula: write one function with `keras.ops` in a new file, give its formula
and source in the docstring, export it here, and test it against a float64 reference in
`tests/reference.py`.
"""

from keras_dskd.ops.attention_transfer import attention_transfer
from keras_dskd.ops.auto_temperature import auto_temperature
from keras_dskd.ops.binary_soft_targets import binary_soft_targets
from keras_dskd.ops.channel_correlation import (
    channel_alignment,
    channel_correlation,
    cross_correlation,
    cross_off_diagonal_energy,
    off_diagonal_energy,
)
from keras_dskd.ops.channel_wise_distillation import channel_wise_distillation
from keras_dskd.ops.contrastive_distillation import contrastive_distillation
from keras_dskd.ops.decoupled_distillation import decoupled_distillation
from keras_dskd.ops.effective_rank import centered_effective_rank, effective_rank
from keras_dskd.ops.fitnet import standardized_distance
from keras_dskd.ops.hard_targets import hard_targets
from keras_dskd.ops.regression_targets import bounded_regression, regression_targets
from keras_dskd.ops.relational_distillation import relational_angle, relational_distance
from keras_dskd.ops.rows import as_rows as rows
from keras_dskd.ops.rows import normalize, standardize
from keras_dskd.ops.samples import weighted_mean
from keras_dskd.ops.similarity import centered_kernel_alignment, similarity_preserving
from keras_dskd.ops.soft_targets import soft_targets
from keras_dskd.ops.spatial_uniformity import spatial_uniformity

__all__ = [
    "attention_transfer",
    "auto_temperature",
    "binary_soft_targets",
    "bounded_regression",
    "centered_effective_rank",
    "centered_kernel_alignment",
    "channel_alignment",
    "channel_correlation",
    "channel_wise_distillation",
    "contrastive_distillation",
    "cross_correlation",
    "cross_off_diagonal_energy",
    "decoupled_distillation",
    "effective_rank",
    "hard_targets",
    "normalize",
    "off_diagonal_energy",
    "regression_targets",
    "relational_angle",
    "relational_distance",
    "rows",
    "similarity_preserving",
    "soft_targets",
    "spatial_uniformity",
    "standardize",
    "standardized_distance",
    "weighted_mean",
]
