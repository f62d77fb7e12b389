"""What porting.md says: factors to losses of other libraries, and their precision."""

import forms_elsewhere
import keras
import numpy as np
import precision
import pytest
import reference

from keras_dskd import losses

pytestmark = pytest.mark.backend_neutral
N, C = 7, 5
POSITIONS = 4 * 4


def pair(*shape, seed=0):
    return [reference.samples(*shape, seed=seed + i) for i in (0, 1)]


def there(name, *arrays, **arguments):
    """The value elsewhere, in float64."""
    return float(getattr(forms_elsewhere, name)(*arrays, **arguments))


def here(loss, *arrays):
    return float(loss.compute_loss(*(np.float32(x) for x in arrays)))


#: Name elsewhere -> (our loss, the inputs' shape, the weight here of weight 1 there).
SAME = {
    "soft_targets": (losses.SoftTargets(), (N, C), 1),
    "soft_targets_of_deit": (losses.SoftTargets(), (N, C), 1 / C),
    "hard_targets_of_deit": (losses.HardTargets(), (N, C), 1),
    "channel_wise": (losses.ChannelWiseDistillation(), (N, 4, 4, C), 1),
    "similarity": (losses.SimilarityPreserving(), (N, C), 1),
    "relational_distance": (
        losses.RelationalDistillation(distance_weight=1, angle_weight=0),
        (N, C),
        (N - 1) / N,
    ),
    "relational_angle": (
        losses.RelationalDistillation(distance_weight=0, angle_weight=1),
        (N, C),
        (N - 1) * (N - 2) / N**2,
    ),
    "attention": (losses.AttentionTransfer(), (N, 4, 4, C), 1 / POSITIONS),
    "barlow_twins": (
        losses.ChannelIndependence(off_diagonal_weight=0.0051),
        (N, C),
        C,
    ),
}


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("seed", [0, 2])
def test_a_constant_factor_turns_our_loss_into_the_other(name, seed):
    loss, shape, weight = SAME[name]
    arrays = pair(*shape, seed=seed)
    np.testing.assert_allclose(
        weight * here(loss, *arrays), there(name, *arrays), rtol=1e-5
    )


@pytest.mark.parametrize("seed", [0, 2])
def test_the_covariance_of_vicreg_differs_by_a_factor_on_standardized_rows(seed):
    _, rows = pair(N, C, seed=seed)
    weight = (N / (N - 1)) ** 2 * (C - 1)
    loss = losses.ChannelIndependence(target="self")
    np.testing.assert_allclose(
        weight * here(loss, rows, rows), there("vicreg_covariance", rows), rtol=1e-5
    )


def test_decoupled_distillation_and_uniformity_are_the_same():
    arrays, labels = pair(N, C), np.arange(N) % C
    actual = losses.DecoupledDistillation().compute_loss(
        *map(np.float32, arrays), labels=labels
    )
    expected = there("decoupled", *arrays, labels)
    np.testing.assert_allclose(float(actual), expected, rtol=1e-5)
    actual = here(losses.SpatialUniformity(), *arrays)
    np.testing.assert_allclose(actual, there("uniformity", arrays[1]), rtol=1e-5)


def ratios(name, loss, *shapes):
    """Values elsewhere in units of ours, for three pairs of features."""
    pairs = [
        [reference.samples(*shape, seed=seed + i) for i, shape in enumerate(shapes)]
        for seed in (0, 2, 4)
    ]
    return [there(name, *arrays) / here(loss, *arrays) for arrays in pairs]


def test_no_factor_fits_the_similarities_of_torchdistill():
    """Its rows are normalized by L1."""
    found = ratios(
        "similarity_of_torchdistill", losses.SimilarityPreserving(), *2 * [(N, C)]
    )
    assert max(found) > 1.05 * min(found)


@pytest.mark.parametrize("sides", [(4, 2), (2, 4)])
def test_no_factor_fits_attention_transfer_on_two_grids(sides):
    """The others pool, then square; pooled with a layer, both are the same."""
    shapes = [(N, side, side, C) for side in sides]
    found = ratios("attention_on_two_grids", losses.AttentionTransfer(), *shapes)
    assert max(found) > 1.05 * min(found)

    arrays = [reference.samples(*shape, seed=i) for i, shape in enumerate(shapes)]
    pooled = [
        keras.layers.AveragePooling2D(side // 2)(np.float32(array))
        for side, array in zip(sides, arrays, strict=True)
    ]
    actual = float(losses.AttentionTransfer().compute_loss(*pooled)) / 4
    expected = there("attention_on_two_grids", *arrays)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


HALF = {k: given for k, given in precision.FEATURES.items() if given[0] == "float16"}


@pytest.mark.parametrize("features", precision.FEATURES)
@pytest.mark.parametrize("name", precision.cases())
def test_our_losses_keep_their_precision(name, features):
    elsewhere, here = precision.errors(name, *precision.FEATURES[features])
    # Far from zero, products of rows lose the digits that tell rows apart.
    is_hard = features not in HALF and name in ("similarity", "attention")
    assert here < (1e-2 if is_hard else 1e-5)
    if features in HALF:
        assert not elsewhere < 2 * here


def test_the_table_has_a_line_for_each_loss(capsys):
    precision.main([])
    printed = capsys.readouterr().out
    for name in precision.cases():
        line = next(line for line in printed.splitlines() if f"`{name}`" in line)
        assert line.count(" / ") == len(precision.FEATURES)
