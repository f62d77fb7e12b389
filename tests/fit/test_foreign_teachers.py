"""Teachers made by other libraries, each in a `keras.Model`."""

import keras
import numpy as np
import pytest
import reference
from small_models import crossentropy, labels, mlp, numbers, rows, standing_still

import keras_dskd
from keras_dskd.losses import ChannelAlignment, SoftTargets

N = 8
X = {"teacher": rows(N, 6, seed=1), "student": rows(N, 4, seed=2)}
Y = labels(N)
BACKEND = keras.backend.backend()


def check_teaches(layer, forward, tmp_path, losses=()):
    """A step has the right loss; the teacher stays; files without it load.

    Args:
        layer: The layer that holds the foreign network.
        forward: Function of the input that returns the network's output as an array.
        tmp_path: Folder.
        losses: Further losses.
    """
    inputs = keras.Input((6,))
    teacher = keras.Model(inputs, layer(inputs), name="foreign")
    made = keras_dskd.Distiller(teacher, mlp(4), [SoftTargets(2.0), *losses])
    made.compile(standing_still(), crossentropy())
    before = [weight.copy() for weight in teacher.get_weights()]
    logits = forward(X["teacher"])
    history = numbers(made.fit(X, Y, batch_size=N, verbose=0))
    expected = reference.soft_targets(
        logits, mlp(4).predict(X["student"], verbose=0), 2.0
    )
    assert history["soft_targets"] == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(forward(X["teacher"]), logits, rtol=1e-5)
    for old, new in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    trained = {id(weight) for weight in made.trainable_weights}
    assert not trained & {id(weight) for weight in teacher.weights}
    cached = made.cache_teacher(X["teacher"], tmp_path / "cache", verbose=0)
    np.testing.assert_allclose(cached["(output)"], logits, rtol=1e-4, atol=1e-6)
    made.save(tmp_path / "made.keras", include_teacher=False)
    loaded = keras_dskd.Distiller.load(tmp_path / "made.keras", teacher=teacher)
    again = numbers(loaded.fit(X, Y, batch_size=N, verbose=0))
    assert again["soft_targets"] == pytest.approx(expected, rel=1e-4)
    return made


@pytest.mark.skipif(BACKEND != "torch", reason="TorchModuleWrapper needs torch")
def test_a_torch_module_teaches(tmp_path):
    """In inference mode: its batch statistics stay as they are."""
    import torch

    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Linear(6, 8),
        torch.nn.BatchNorm1d(8),
        torch.nn.Dropout(0.5),
        torch.nn.Linear(8, 3),
    )

    def forward(x):
        with torch.no_grad():
            return module.eval()(torch.as_tensor(x)).numpy()

    layer = keras.layers.TorchModuleWrapper(module, output_shape=(None, 3))
    mean = module[1].running_mean.clone()
    made = check_teaches(layer, forward, tmp_path)
    np.testing.assert_array_equal(module[1].running_mean, mean)
    with pytest.raises(ValueError, match="TorchModuleWrapper.*include_teacher=False"):
        made.save(tmp_path / "with.keras")


@pytest.mark.skipif(BACKEND != "tensorflow", reason="TFSMLayer needs TensorFlow")
def test_a_saved_model_of_tensorflow_teaches(tmp_path):
    network = mlp(6, seed=10)
    network.export(tmp_path / "exported", verbose=False)
    layer = keras.layers.TFSMLayer(str(tmp_path / "exported"), call_endpoint="serve")
    made = check_teaches(layer, lambda x: network.predict(x, verbose=0), tmp_path)
    with pytest.raises(ValueError, match="TFSMLayer.*include_teacher=False"):
        made.save(tmp_path / "with.keras")


def mix(params, inputs):
    return inputs @ params["kernel"] + params["bias"]


@pytest.mark.skipif(BACKEND != "jax", reason="tested with JAX")
def test_a_jax_function_teaches(tmp_path):
    params = {"kernel": rows(6, 3, seed=3), "bias": rows(1, 3, seed=4)[0]}
    layer = keras.layers.JaxLayer(mix, params=params)
    check_teaches(layer, lambda x: mix(params, x), tmp_path)


@pytest.mark.skipif(BACKEND != "jax", reason="tested with JAX")
def test_a_flax_module_teaches(tmp_path):
    flax = pytest.importorskip("flax", reason="flax is not installed")
    import jax

    module = flax.linen.Dense(3)
    variables = module.init(jax.random.key(0), X["teacher"])
    layer = keras.layers.FlaxLayer(module, variables=variables)
    check_teaches(layer, lambda x: np.asarray(module.apply(variables, x)), tmp_path)


def test_a_layer_inside_a_foreign_network_is_not_found():
    """A Keras layer before or after it is."""
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(5, name="around")(inputs)
    teacher = keras.Model(inputs, keras.layers.Lambda(lambda x: 2 * x)(hidden))
    keras_dskd.Distiller(teacher, mlp(4), ChannelAlignment("around", "hidden"))
    with pytest.raises(ValueError, match='Tap "conv1" not found'):
        keras_dskd.Distiller(teacher, mlp(4), ChannelAlignment("conv1", "hidden"))
