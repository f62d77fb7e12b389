"""Layer: regularise features towards an even spread over the unit sphere."""

import keras
import numpy as np
import pytest
import reference

from keras_dskd import losses
from keras_dskd.layers import SpatialUniformity

# Squared distances of unit rows are exact to some 1e-7 and multiplied by t.
TOLERANCE = {"rtol": 1e-5, "atol": 2e-6}


def penalty(layer):
    (loss,) = layer.losses
    return float(keras.ops.convert_to_numpy(loss))


def regularised_model(**kwargs):
    inputs = keras.Input((6, 3))
    x = keras.layers.Conv1D(4, 3, name="feature")(inputs)
    outputs = SpatialUniformity(**kwargs)(x)
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize("shape", [(6, 4), (6, 2, 3, 4)])
@pytest.mark.parametrize("training", [True, False])
def test_layer_returns_its_input(shape, training):
    x = reference.samples(*shape).astype("float32")

    y = SpatialUniformity(0.5)(x, training=training)

    np.testing.assert_array_equal(keras.ops.convert_to_numpy(y), x)


@pytest.mark.parametrize("rows", ["pooled", "flattened", "positions"])
def test_penalty_is_the_weighted_uniformity_of_the_reference(rows):
    x = reference.samples(4, 2, 3).astype("float32")
    layer = SpatialUniformity(0.3, temperature=1.5, rows=rows)

    layer(x, training=True)

    expected = 0.3 * reference.spatial_uniformity(reference.rows(x, rows), 1.5)
    np.testing.assert_allclose(penalty(layer), expected, **TOLERANCE)


@pytest.mark.parametrize("training", [None, False])
def test_layer_is_inactive_unless_training(training):
    layer = SpatialUniformity(0.3)
    layer(reference.samples(6, 4), training=True)

    layer(reference.samples(1, 4), training=training)

    assert layer.losses == []


def test_model_adds_the_penalty_to_its_loss_in_training_alone():
    model = regularised_model(weight=0.3)
    x = reference.samples(5, 6, 3).astype("float32")
    feature = keras.ops.convert_to_numpy(model(x))
    y = np.zeros_like(feature)
    model.compile(keras.optimizers.SGD(0.0), "mse")

    trained = model.train_on_batch(x, y)
    evaluated = model.evaluate(x, y, verbose=0)

    mean_square = (feature.astype("float64") ** 2).mean()
    uniformity = reference.spatial_uniformity(reference.rows(feature))
    np.testing.assert_allclose(trained, mean_square + 0.3 * uniformity, rtol=1e-5)
    np.testing.assert_allclose(evaluated, mean_square, rtol=1e-5)


@pytest.mark.parametrize("rows", ["pooled", "positions"])
def test_fit_reduces_the_uniformity(rows):
    def uniformity():
        features = reference.rows(model.predict(x, verbose=0), rows)
        return reference.spatial_uniformity(features)

    model = regularised_model(weight=1.0, rows=rows)
    x = reference.samples(20, 6, 3).astype("float32") + 1.0
    before = uniformity()
    model.compile(keras.optimizers.Adam(0.02))  # no loss but the penalty

    model.fit(x, batch_size=8, epochs=6, verbose=0)  # the last batch has 4 samples

    assert uniformity() < before - 0.2


def test_saved_model_is_the_same_and_still_regularises(tmp_path):
    model = regularised_model(
        weight=0.3, temperature=1.5, rows="positions", name="uniformity"
    )
    x = reference.samples(5, 6, 3).astype("float32")

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")

    y = keras.ops.convert_to_numpy(loaded(x, training=True))
    np.testing.assert_array_equal(y, keras.ops.convert_to_numpy(model(x)))
    rows = reference.rows(y, "positions")
    expected = 0.3 * reference.spatial_uniformity(rows, 1.5)
    np.testing.assert_allclose(
        penalty(loaded.get_layer("uniformity")), expected, **TOLERANCE
    )


def test_config_survives_serialization():
    layer = SpatialUniformity(0.3, temperature=1.5, rows="flattened", name="uniformity")

    serialized = keras.saving.serialize_keras_object(layer)
    restored = keras.saving.deserialize_keras_object(serialized)

    assert type(restored) is SpatialUniformity
    assert (restored.weight, restored.temperature) == (0.3, 1.5)
    assert restored.rows == "flattened"
    assert restored.get_config() == layer.get_config()


def test_layer_and_loss_of_the_same_name_are_told_apart():
    layer = keras.saving.serialize_keras_object(SpatialUniformity(0.3))
    loss = keras.saving.serialize_keras_object(losses.SpatialUniformity())

    assert layer["registered_name"] != loss["registered_name"]


def test_mask_passes_through():
    x = reference.samples(3, 4, 2).astype("float32")
    x[:, 2:] = 0.0
    inputs = keras.Input((4, 2))
    masked = keras.layers.Masking()(inputs)
    outputs = keras.layers.GlobalAveragePooling1D()(SpatialUniformity(0.3)(masked))

    actual = keras.Model(inputs, outputs)(x, training=True)

    # Two steps of four are masked: the mean is over the other two.
    expected = x[:, :2].mean(axis=1)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(actual), expected, rtol=1e-5, atol=1e-6
    )


def test_mixed_precision_penalises_in_float32():
    # Squares of 1e4 overflow float16.
    x = (1e4 * reference.samples(6, 3, 4)).astype("float32")
    layer = SpatialUniformity(0.3, dtype="mixed_float16")

    y = layer(x, training=True)

    assert keras.backend.standardize_dtype(y.dtype) == "float16"
    (loss,) = layer.losses
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    rounded = reference.rows(x.astype("float16"))
    expected = 0.3 * reference.spatial_uniformity(rounded)
    np.testing.assert_allclose(float(loss), expected, **TOLERANCE)


def test_model_in_mixed_precision_trains():
    inputs = keras.Input((5,))
    x = keras.layers.Dense(4, dtype="mixed_float16")(inputs)
    x = SpatialUniformity(0.3, dtype="mixed_float16")(x)
    model = keras.Model(inputs, keras.layers.Dense(1, dtype="float32")(x))
    model.compile("sgd", "mse")

    history = model.fit(
        reference.samples(8, 5), np.ones((8, 1)), batch_size=4, epochs=2, verbose=0
    )

    assert np.isfinite(history.history["loss"]).all()
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def test_symbolic_output_has_the_shape_of_the_input():
    layer = SpatialUniformity(0.3)

    assert layer(keras.Input((None, None, 4))).shape == (None, None, None, 4)
    assert layer.compute_output_shape((None, 7, 4)) == (None, 7, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": -0.1}, ">= 0. Received: weight=-0.1"),
        ({"weight": float("inf")}, ">= 0. Received: weight=inf"),
        ({"weight": 0.1, "temperature": 0.0}, "between 1e-6 and 1e6.*temperature=0.0"),
        ({"weight": 0.1, "rows": "mean"}, "one of .* Received: rows='mean'"),
    ],
)
def test_argument_out_of_range_raises(arguments, message):
    with pytest.raises(ValueError, match=message):
        SpatialUniformity(**arguments)


def test_single_row_raises_in_training():
    with pytest.raises(ValueError, match="at least 2 rows"):
        SpatialUniformity(0.3)(reference.samples(1, 4), training=True)
