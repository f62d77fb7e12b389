"""One stored set of losses and gradients that every backend reproduces."""

import pathlib

import numpy as np
import pytest
from fixtures import make_three_backends
from gradients import value_and_gradient

from keras_dskd import losses

PATH = pathlib.Path(__file__).parents[2] / "fixtures" / "three_backends.npz"
LOSSES = {
    "soft_targets": losses.SoftTargets(temperature=4.0),
    "channel_independence_teacher": losses.ChannelIndependence(
        target="teacher", off_diagonal_weight=0.02
    ),
    "channel_independence_self": losses.ChannelIndependence(target="self"),
    "channel_alignment": losses.ChannelAlignment(),
    "spatial_uniformity": losses.SpatialUniformity(temperature=2.0),
}


@pytest.fixture(scope="module")
def stored():
    with np.load(PATH, allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("name", LOSSES)
def test_backend_reproduces_the_stored_loss_and_gradient(name, stored):
    teacher, student = stored[f"{name}/teacher"], stored[f"{name}/student"]

    loss, (teacher_gradient, student_gradient) = value_and_gradient(
        LOSSES[name].compute_loss, teacher, student
    )

    # float32 on any backend stays within 1e-5 of float64; 1e-4 is what is promised.
    expected = stored[f"{name}/student_gradient"]
    largest = np.abs(expected).max()
    assert largest > 1e-3
    np.testing.assert_allclose(loss, stored[f"{name}/loss"], rtol=1e-4)
    np.testing.assert_allclose(
        student_gradient / largest, expected / largest, rtol=0, atol=1e-4
    )
    np.testing.assert_array_equal(teacher_gradient, 0.0)


def test_stored_values_are_what_the_reference_gives(stored):
    cases = {loss.__name__: loss for loss in make_three_backends.CASES}

    assert sorted(cases) == sorted(LOSSES)
    assert len(stored) == 4 * len(cases)
    for name, loss in cases.items():
        case = make_three_backends.expected(
            loss, stored[f"{name}/teacher"], stored[f"{name}/student"]
        )
        for key, value in case.items():
            assert stored[key].dtype == "float64"
            # Central differences leave 1e-10 of noise, which differs by platform.
            np.testing.assert_allclose(stored[key], value, rtol=1e-7, atol=1e-8)
