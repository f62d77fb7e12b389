"""Every public layer passes the same checks; a new layer needs one line in `CASES`."""

import dataclasses
import inspect
import json
from collections.abc import Callable

import keras
import numpy as np
import pytest
import reference

from keras_dskd import layers, losses

VECTOR, MAP = (6, 4), (6, 2, 3, 4)
# Sums of at most some hundred float32 products of order 1; distances of unit rows are
# exact to some 1e-7, and multiplied by the temperature.
TOLERANCE = {"rtol": 1e-5, "atol": 2e-6}
WEIGHT = 0.3


@dataclasses.dataclass
class Case:
    """A layer's class, arguments beside `weight`, and the penalty of weight 1."""

    layer_class: type
    arguments: dict
    reference: Callable
    shapes: tuple = (VECTOR, MAP)

    def layer(self, weight=WEIGHT, **arguments):
        return self.layer_class(weight, **self.arguments, **arguments)

    def expected(self, x):
        return WEIGHT * self.reference(x)


def of_rows(formula, *arguments, kind="pooled"):
    return lambda x: formula(reference.rows(x, kind), *arguments)


CASES = {
    "channel independence": Case(
        layers.ChannelIndependence,
        {"epsilon": 1e-3},
        of_rows(reference.off_diagonal_energy, 1e-3),
    ),
    "channel independence, defaults": Case(
        layers.ChannelIndependence, {}, of_rows(reference.off_diagonal_energy)
    ),
    "spatial uniformity": Case(
        layers.SpatialUniformity,
        {"temperature": 1.5},
        of_rows(reference.spatial_uniformity, 1.5),
    ),
    "spatial uniformity, flattened": Case(
        layers.SpatialUniformity,
        {"rows": "flattened"},
        of_rows(reference.spatial_uniformity, kind="flattened"),
        shapes=(MAP,),
    ),
    "spatial uniformity, positions": Case(
        layers.SpatialUniformity,
        {"rows": "positions"},
        of_rows(reference.spatial_uniformity, kind="positions"),
        shapes=(MAP,),
    ),
}
PUBLIC = {name: getattr(layers, name) for name in layers.__all__}

every_case = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
every_class = pytest.mark.parametrize("layer_class", PUBLIC.values(), ids=list(PUBLIC))


def penalty(layer):
    (loss,) = layer.losses
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    return float(keras.ops.convert_to_numpy(loss))


def regularized_model(case, dtype=None, **arguments):
    """A convolution whose output the layer regularizes and returns."""
    inputs = keras.Input((6, 3))
    x = keras.layers.Conv1D(4, 3, dtype=dtype)(inputs)
    return keras.Model(inputs, case.layer(dtype=dtype, **arguments)(x))


def images(samples=6):
    return reference.samples(samples, 6, 3).astype("float32")


def test_every_public_layer_has_a_case():
    named = {case.layer_class.__name__ for case in CASES.values()}
    assert sorted(named) == sorted(layers.__all__)


@pytest.mark.every_backend
@pytest.mark.parametrize(
    "case, shape",
    [
        pytest.param(case, shape, id=f"{name}-{len(shape) - 1}d")
        for name, case in CASES.items()
        for shape in case.shapes
    ],
)
def test_layer_returns_its_input_and_adds_the_weighted_penalty(case, shape):
    x = reference.samples(*shape).astype("float32")
    layer = case.layer()
    y = layer(x, training=True)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(y), x)
    np.testing.assert_allclose(penalty(layer), case.expected(x), **TOLERANCE)


@pytest.mark.parametrize("training", [None, False])
@every_case
def test_layer_is_inactive_unless_training(case, training):
    layer = case.layer()
    layer(reference.samples(*MAP), training=True)
    x = reference.samples(1, 4).astype("float32")
    y = layer(x, training=training)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(y), x)
    assert layer.losses == []


@every_class
def test_a_single_row_raises_in_training(layer_class):
    with pytest.raises(ValueError, match="at least 2 rows"):
        layer_class(WEIGHT)(reference.samples(1, 4), training=True)


@every_case
def test_mixed_precision_penalizes_in_float32(case):
    # Squares of 1e4 overflow float16.
    x = (1e4 * reference.samples(*MAP)).astype("float32")
    layer = case.layer(dtype="mixed_float16")
    y = layer(x, training=True)
    assert keras.backend.standardize_dtype(y.dtype) == "float16"
    expected = case.expected(x.astype("float16"))
    np.testing.assert_allclose(penalty(layer), expected, **TOLERANCE)


@every_class
def test_a_mask_passes_through(layer_class):
    x = reference.samples(3, 4, 2).astype("float32")
    x[:, 2:] = 0.0
    inputs = keras.Input((4, 2))
    masked = keras.layers.Masking()(inputs)
    outputs = keras.layers.GlobalAveragePooling1D()(layer_class(WEIGHT)(masked))
    actual = keras.Model(inputs, outputs)(x, training=True)
    # Two steps of four are masked: the mean is over the other two.
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(actual), x[:, :2].mean(axis=1), rtol=1e-5, atol=1e-6
    )


@every_class
def test_symbolic_output_has_the_shape_of_the_input(layer_class):
    layer = layer_class(WEIGHT)
    assert layer(keras.Input((None, None, 4))).shape == (None, None, None, 4)
    assert layer.compute_output_shape((None, 7, 4)) == (None, 7, 4)


# Training


@every_case
def test_a_model_adds_the_penalty_to_its_loss_in_training_alone(case):
    model, x = regularized_model(case), images()
    feature = keras.ops.convert_to_numpy(model(x))
    model.compile(keras.optimizers.SGD(0.0), "mse")
    trained = model.train_on_batch(x, np.zeros_like(feature))
    evaluated = model.evaluate(x, np.zeros_like(feature), verbose=0)
    mean_square = (feature.astype("float64") ** 2).mean()
    np.testing.assert_allclose(trained, mean_square + case.expected(feature), rtol=1e-5)
    np.testing.assert_allclose(evaluated, mean_square, rtol=1e-5)


@every_case
def test_fit_reduces_the_penalty(case):
    model, x = regularized_model(case, weight=1.0), images(20) + 1.0
    # Similar channels, the same ones on every device.
    kernel = 0.3 + 0.1 * reference.samples(3, 3, 4)
    model.layers[1].set_weights([kernel, np.zeros(4)])
    before = case.expected(model.predict(x, verbose=0))
    model.compile(keras.optimizers.Adam(0.05))  # no loss but the penalty
    model.fit(x, batch_size=8, epochs=8, verbose=0)  # the last batch has 4 samples
    after = case.expected(model.predict(x, verbose=0))
    # Energies are positive and uniformities negative.
    assert after < (0.5 * before if before > 0 else before - 0.2 * WEIGHT)


@every_class
def test_a_model_in_mixed_precision_trains(layer_class):
    case = next(c for c in CASES.values() if c.layer_class is layer_class)
    model = regularized_model(case, dtype="mixed_float16")
    model.compile("sgd", "mse")
    history = model.fit(images(8), np.ones((8, 4, 4)), batch_size=4, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


# Arguments and files


@every_case
def test_config_holds_all_arguments_and_survives_serialization(case):
    layer = case.layer(name="regularizer")
    arguments = set(inspect.signature(case.layer_class.__init__).parameters)
    assert arguments - {"self", "kwargs"} <= set(layer.get_config())
    serialized = json.dumps(keras.saving.serialize_keras_object(layer))
    restored = keras.saving.deserialize_keras_object(json.loads(serialized))
    assert type(restored) is case.layer_class
    assert restored.get_config() == layer.get_config()
    assert restored.weight == WEIGHT
    for name, value in case.arguments.items():
        assert getattr(restored, name) == value


@every_case
def test_a_saved_model_is_the_same_and_still_regularizes(case, tmp_path):
    model, x = regularized_model(case, name="regularizer"), images()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    y = keras.ops.convert_to_numpy(loaded(x, training=True))
    np.testing.assert_array_equal(y, keras.ops.convert_to_numpy(model(x)))
    np.testing.assert_allclose(
        penalty(loaded.get_layer("regularizer")), case.expected(y), **TOLERANCE
    )


@every_class
def test_a_loss_of_the_same_name_is_registered_under_another(layer_class):
    registered = {
        keras.saving.get_registered_name(kind)
        for kind in (layer_class, getattr(losses, layer_class.__name__))
    }
    assert len(registered) == 2


#: Values out of an argument's range.
OUT_OF_RANGE = {
    "weight": [-0.1, float("nan"), float("inf")],
    "epsilon": [0.0, float("nan")],
    "temperature": [0.0, float("nan")],
    "rows": ["mean"],
}


@every_class
def test_argument_out_of_range_raises_and_is_named(layer_class):
    parameters = inspect.signature(layer_class.__init__).parameters
    for name in [name for name in parameters if name not in ("self", "kwargs")]:
        for wrong in OUT_OF_RANGE[name]:
            with pytest.raises(
                ValueError, match=f"must be .*Received: {name}='?{wrong}"
            ):
                layer_class(**{"weight": WEIGHT, name: wrong})


@pytest.mark.parametrize("kind", ["pooled", "positions"])
@pytest.mark.parametrize("name", ["channel independence", "spatial uniformity"])
def test_masked_steps_do_not_count(name, kind):
    case = CASES[name]
    if kind == "positions" and case.layer_class is layers.ChannelIndependence:
        pytest.skip("This layer always pools.")
    x = reference.samples(6, 5, 4)
    mask = np.arange(5) < np.array([[5], [3], [0], [4], [2], [1]])
    if kind == "positions":
        layer = case.layer_class(WEIGHT, rows="positions")
        expected = WEIGHT * reference.spatial_uniformity(x[mask])
    else:
        layer = case.layer()
        pooled = [row[real].mean(axis=0) for row, real in zip(x, mask) if any(real)]  # noqa: B905
        expected = case.expected(np.stack(pooled))
    x[~mask] = 50.0
    layer(
        keras.ops.convert_to_tensor(x, "float32"),
        training=True,
        mask=keras.ops.convert_to_tensor(mask),
    )
    (penalty,) = layer.losses
    np.testing.assert_allclose(float(penalty), expected, **TOLERANCE)
