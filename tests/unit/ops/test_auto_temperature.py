"""The temperature that fits how sure the teacher is."""

import keras
import numpy as np
import pytest
import reference
from gradients import value, value_and_gradient

import keras_dskd
from keras_dskd import losses, ops
from keras_dskd.internal import replicas
from keras_dskd.losses.output_targets import OutputTargets

pytestmark = pytest.mark.every_backend


@pytest.mark.parametrize("scale", [0.1, 1.0, 2.0, 3.0, 4.0, 6.0, 20.0])
@pytest.mark.parametrize("shape", [(64, 18), (8, 2), (2, 5, 5, 7)])
def test_it_is_that_of_the_reference(shape, scale):
    teacher = scale * reference.samples(*shape)

    actual = float(value(ops.auto_temperature, teacher))

    assert actual == pytest.approx(reference.auto_temperature(teacher), rel=1e-5)


@pytest.mark.parametrize("scale", [6.0, 7.0, 8.0])
def test_the_highest_probability_averages_0_6(scale):
    """Interpolation between three temperatures is within 0.01."""
    teacher = scale * reference.samples(64, 10)

    temperature = float(ops.auto_temperature(teacher))

    assert 2 < temperature < 4
    probabilities = np.exp(reference.log_softmax(teacher / temperature))
    assert probabilities.max(axis=-1).mean() == pytest.approx(0.6, abs=0.01)


@pytest.mark.parametrize("temperature", [2.0, 2 * 2**0.5, 4.0])
def test_two_classes_by_hand(temperature):
    """The logits (0, T log 1.5) have the probabilities 0.4 and 0.6 at T."""
    teacher = np.array([[0.0, temperature * np.log(1.5)]] * 3)

    assert float(ops.auto_temperature(teacher)) == pytest.approx(temperature, rel=1e-5)


def test_logits_of_any_size_are_finite():
    huge = np.array([[3e4, -3e4, 0.0], [1e30, 0.0, 0.0]])

    assert float(ops.auto_temperature(huge)) == 4.0
    assert float(ops.auto_temperature(np.zeros((2, 3)))) == 2.0


def test_samples_of_weight_0_do_not_count():
    """Not even if they are NaN; other weights count alike."""
    sure, unsure = np.array([[9.0, 0.0, 0.0]]), np.array([[0.1, 0.0, 0.0]])
    both = np.concatenate([sure, unsure, np.full((1, 3), np.nan)])

    assert float(ops.auto_temperature(both, np.array([0.3, 0.0, 0.0]))) == 4.0
    assert float(ops.auto_temperature(both, np.array([0.0, 5.0, 0.0]))) == 2.0
    assert float(ops.auto_temperature(both, np.zeros(3))) == 4.0


def test_positions_and_their_weights_count_one_by_one():
    maps = np.zeros((2, 3, 4))  # (n, classes, positions)
    maps[:, 0, :2] = 9.0
    weight = np.zeros((2, 4))
    weight[:, :2] = 1.0

    assert float(ops.auto_temperature(maps, weight, axis=1)) == 4.0
    assert float(ops.auto_temperature(maps, 1 - weight, axis=1)) == 2.0


@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_that_of_the_samples_of_all_replicas(weighted, monkeypatch):
    """A replica adds the sums of another one, which has other samples."""
    teacher = 12 * reference.samples(12, 10)
    teacher[8:] *= 0.3
    weight = np.arange(12) % 3.0 if weighted else None
    sums = []

    class Replicas:
        def sum(self, tensor):
            sums.append(tensor)
            return sum(sums)

    monkeypatch.setattr(replicas, "current", Replicas)
    for part in (slice(8, 12), slice(0, 8)):
        actual = ops.auto_temperature(
            teacher[part], None if weight is None else weight[part]
        )

    counted = teacher if weight is None else teacher[weight > 0]
    expected = reference.auto_temperature(counted)
    assert 2 < expected < 4
    assert float(actual) == pytest.approx(expected, rel=1e-5)


def test_the_loss_is_that_of_the_measured_temperature():
    teacher = 10 * reference.samples(16, 10)
    student = reference.samples(16, 10, seed=1)
    auto = losses.SoftTargets("auto")

    actual, (gradient,) = value_and_gradient(
        lambda s: auto.compute_loss(keras.ops.convert_to_tensor(teacher), s), student
    )

    temperature = float(ops.auto_temperature(teacher))
    fixed = losses.SoftTargets(temperature)
    expected, (of_fixed,) = value_and_gradient(
        lambda s: fixed.compute_loss(keras.ops.convert_to_tensor(teacher), s), student
    )
    assert 2 < temperature < 4
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, of_fixed, rtol=1e-5, atol=1e-8)


def test_a_distiller_with_it_trains_and_is_saved(tmp_path):
    teacher, student = (
        keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]) for _ in range(2)
    )
    distiller = keras_dskd.Distiller(teacher, student, losses.SoftTargets("auto"))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile("sgd", loss)
    x = {"teacher": reference.samples(8, 4), "student": reference.samples(8, 4, seed=1)}
    x["teacher_mask"] = np.arange(8) < 6
    logs = distiller.fit(x, np.arange(8) % 3, batch_size=8, verbose=0).history

    assert np.isfinite(logs["soft_targets"]).all()
    distiller.save(tmp_path / "d.keras")
    loaded = keras.saving.load_model(tmp_path / "d.keras")
    assert loaded.distillation_losses[0].temperature == "auto"


@pytest.mark.parametrize("make", [losses.SoftTargets, OutputTargets])
def test_another_word_raises(make):
    with pytest.raises(ValueError, match='or "auto". Received: temperature=.Auto.'):
        make(temperature="Auto")


def test_a_word_assigned_later_raises():
    loss = losses.SoftTargets()
    loss.temperature = "high"
    logits = keras.ops.ones((2, 3))
    with pytest.raises(ValueError, match="`temperature` must be .*'high'"):
        loss.compute_loss(logits, logits)


def test_losses_of_labels_have_no_automatic_temperature():
    with pytest.raises(ValueError, match="`temperature` must be .*temperature='auto'"):
        losses.BinarySoftTargets("auto")


@pytest.mark.parametrize(
    "shape, axis, message",
    [
        ((0, 3), -1, "at least one sample"),
        ((3,), -1, "at least 2 classes"),
        ((3, 1), -1, "at least 2 classes"),
        ((3, 4), 2, "no axis of classes 2"),
        ((3, 4), 0, "axis of the samples"),
    ],
)
@pytest.mark.parametrize(
    "function",
    [ops.auto_temperature, lambda t, axis: ops.soft_targets(t, t, "auto", axis=axis)],
)
def test_logits_of_another_form_raise(function, shape, axis, message):
    with pytest.raises(ValueError, match=message):
        function(np.ones(shape, "float32"), axis=axis)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="converts variables to numbers"
)
def test_a_variable_is_a_temperature():
    loss = losses.SoftTargets(keras.Variable(3.0))

    assert loss.get_config()["temperature"] == 3.0
