"""Loss: features spread evenly over the unit sphere."""

import keras
import numpy as np
import pytest
import reference
from gradients import assert_gradient_close, compiled_on_jax, value_and_gradient
from stock_distiller import distillation_loss_of_an_epoch, model

from keras_dskd.losses import SpatialUniformity

# Squared distances of unit rows are exact to some 1e-7 and multiplied by t.
TOLERANCE = {"rtol": 1e-5, "atol": 2e-6}


@pytest.mark.parametrize(
    ("shape", "rows"),
    [((5, 4), "pooled")]
    + [((4, 3, 2), rows) for rows in ("pooled", "flattened", "positions")],
)
def test_values_match_the_reference_and_the_teacher_gets_no_gradient(rows, shape):
    student = reference.samples(*shape)
    loss = SpatialUniformity(temperature=1.5, rows=rows)

    actual, gradients = value_and_gradient(
        loss.compute_loss, reference.samples(shape[0], 7, seed=1), student
    )

    def f(student):
        return reference.spatial_uniformity(reference.rows(student, rows), 1.5)

    np.testing.assert_allclose(actual, f(student), **TOLERANCE)
    assert_gradient_close(gradients[1], reference.finite_difference(f, student))
    np.testing.assert_array_equal(gradients[0], 0.0)


def test_loss_is_of_pooled_rows_at_temperature_two_by_default():
    # Means over positions (2, 0) and (0, 3): at right angles, -2 · 2 = -4.
    student = np.array([[[1.0, 1.0], [3.0, -1.0]], [[-1.0, 2.0], [1.0, 4.0]]])

    actual = float(compiled_on_jax(SpatialUniformity().compute_loss)(None, student))

    np.testing.assert_allclose(actual, -4.0, rtol=1e-6)


def test_half_precision_features_equal_the_reference_of_the_rounded():
    # Squares of 1e4 overflow float16.
    student = keras.ops.cast(1e4 * reference.samples(6, 3, 4), "float16")

    f = compiled_on_jax(SpatialUniformity().compute_loss)
    actual = float(f(None, student))

    rounded = reference.rows(keras.ops.convert_to_numpy(student))
    expected = reference.spatial_uniformity(rounded)
    np.testing.assert_allclose(actual, expected, **TOLERANCE)


@pytest.mark.parametrize("layer", ["student_feature", None])
def test_stock_distiller_reads_the_students_layer(layer):
    value, features = distillation_loss_of_an_epoch(
        SpatialUniformity(student_layer_name=layer),
        model("teacher", width=6),
        model("student"),
    )

    expected = reference.spatial_uniformity(features[layer or "student_logits"])
    other = "student_logits" if layer else "student_feature"
    assert abs(expected - reference.spatial_uniformity(features[other])) > 1e-3
    np.testing.assert_allclose(value, expected, rtol=1e-4)  # tanh and Dense in float32


@pytest.mark.parametrize("layer", ["a", None])
def test_config_survives_serialization(layer):
    loss = SpatialUniformity(layer, temperature=3.0, rows="positions")

    serialized = keras.saving.serialize_keras_object(loss)
    restored = keras.saving.deserialize_keras_object(serialized)

    assert type(restored) is SpatialUniformity
    assert restored.get_config() == {
        "student_layer_name": layer,
        "temperature": 3.0,
        "rows": "positions",
    }
    assert restored.teacher_layer_name == loss.teacher_layer_name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0.0}, "between 1e-6 and 1e6. Received: temperature=0.0"),
        (
            {"temperature": float("nan")},
            "between 1e-6 and 1e6. Received: temperature=nan",
        ),
        ({"rows": "mean"}, r"one of \('pooled', .*\). Received: rows='mean'"),
    ],
)
def test_argument_out_of_range_raises(arguments, message):
    with pytest.raises(ValueError, match=message):
        SpatialUniformity(**arguments)


def test_single_row_raises_and_positions_of_one_sample_do_not():
    student = reference.samples(1, 5, 4)

    with pytest.raises(ValueError, match="at least 2 rows"):
        SpatialUniformity().compute_loss(None, student)

    of_positions = compiled_on_jax(SpatialUniformity(rows="positions").compute_loss)
    actual = float(of_positions(None, student))
    expected = reference.spatial_uniformity(student[0])
    np.testing.assert_allclose(actual, expected, **TOLERANCE)
