"""Losses of features: values by hand, and what is particular to one loss."""

import numpy as np
import pytest
import reference
from gradients import value

from keras_dskd import losses

# With epsilon = 144, ±9 standardizes to 9 / sqrt(81 + 144) = ±0.6, and ±16 to ±0.8.
TEACHER = np.array([[9.0, 16.0], [-9.0, -16.0]])
STUDENT = np.array([[16.0, -9.0], [-16.0, 9.0]])


def test_channel_alignment_by_hand():
    # C_11 = 0.48 and C_22 = -0.48; (0.52² + 1.48²) / 2 = 1.2304.
    loss = losses.ChannelAlignment(epsilon=144.0)
    np.testing.assert_allclose(
        value(loss.compute_loss, TEACHER, STUDENT), 1.2304, rtol=1e-6
    )


def test_channel_independence_by_hand():
    # C = [[0.48, -0.36], [0.64, -0.48]]; (0.52² + 1.48²) / 2 = 1.2304;
    # 0.5 (0.36² + 0.64²) / 2 = 0.1348.
    loss = losses.ChannelIndependence(off_diagonal_weight=0.5, epsilon=144.0)
    np.testing.assert_allclose(
        value(loss.compute_loss, TEACHER, STUDENT), 1.3652, rtol=1e-6
    )


def test_spatial_uniformity_by_default_is_of_pooled_rows_at_temperature_two():
    # Means over positions (2, 0) and (0, 3): at right angles, -2 · 2 = -4.
    student = np.array([[[1.0, 1.0], [3.0, -1.0]], [[-1.0, 2.0], [1.0, 4.0]]])
    actual = value(lambda s: losses.SpatialUniformity().compute_loss(None, s), student)
    np.testing.assert_allclose(actual, -4.0, rtol=1e-6)


def test_pooled_features_may_have_different_positions():
    teacher, student = reference.samples(6, 2, 2, 4), reference.samples(6, 5, 4, seed=1)
    actual = value(losses.ChannelIndependence().compute_loss, teacher, student)
    expected = reference.guided_channel_independence(
        reference.rows(teacher), reference.rows(student)
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_positions_of_a_finer_grid_are_averaged_over_blocks():
    fine, coarse = reference.samples(6, 4, 4, 4), reference.samples(6, 2, 2, 4, seed=1)
    blocks = fine.reshape(6, 2, 2, 2, 2, 4).mean(axis=(2, 4))
    actual = value(losses.FitNet(rows="positions").compute_loss, fine, coarse)
    expected = reference.standardized_distance(
        reference.rows(blocks, "positions"), reference.rows(coarse, "positions")
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "loss_class", [losses.SimilarityPreserving, losses.CenteredKernelAlignment]
)
def test_similarities_of_samples_refuse_a_row_per_position(loss_class):
    with pytest.raises(ValueError, match="one row each.*rows='positions'"):
        loss_class(rows="positions")
