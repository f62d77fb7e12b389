"""Value and gradient of a function on whichever backend Keras runs."""

import functools

import keras
import numpy as np


def value_and_gradient(f, *arrays, compiled=False):
    """Returns the scalar `f(*arrays)` and its gradient with respect to each array.

    JAX always compiles, torch never does. TensorFlow compiles if `compiled`, with an
    unknown batch size. The gradient for an array that `f` does not use is zeros.
    """
    arrays = [np.asarray(array, "float32") for array in arrays]
    backend = keras.backend.backend()
    value, gradients = globals()[f"_on_{backend}"](f, arrays, compiled)
    assert keras.backend.standardize_dtype(value.dtype) == "float32"
    assert tuple(value.shape) == ()
    return float(value), [
        np.asarray(keras.ops.convert_to_numpy(gradient), "float64")
        for gradient in gradients
    ]


def value(f, *arrays):
    """Returns the scalar `f(*arrays)`."""
    arrays = [keras.ops.convert_to_tensor(array, "float32") for array in arrays]
    result = compiled_on_jax(f)(*arrays)
    assert keras.backend.standardize_dtype(result.dtype) == "float32"
    assert tuple(result.shape) == ()
    return float(result)


@functools.cache
def compiled_on_jax(f):
    """Compiles `f` on JAX, where compilation is faster than eager calls."""
    if keras.backend.backend() != "jax":
        return f
    import jax

    return jax.jit(f)


def assert_gradient_close(actual, expected):
    """Compares in units of the gradient's largest entry.

    Each entry is a float32 sum of positive and negative terms that are as large as the
    largest entry. Small entries are therefore exact only to about 1e-5 of it.
    """
    largest = np.abs(expected).max()
    # Where the gradient is 0, terms of order 1 / sqrt(epsilon) = 316 cancel.
    atol = 1e-4 * largest if largest > 1e-4 else 1e-5
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=atol)


def _on_jax(f, arrays, compiled):
    import jax

    return _jax_step(f, len(arrays))(*map(jax.numpy.asarray, arrays))


@functools.cache  # the same function for arrays of the same shapes compiles once
def _jax_step(f, count):
    import jax

    return jax.jit(jax.value_and_grad(f, argnums=tuple(range(count))))


def _on_tensorflow(f, arrays, compiled):
    import tensorflow as tf

    def step(*tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            result = f(*tensors)
        return result, tape.gradient(
            result, tensors, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )

    if compiled:
        unknown_batch = [
            tf.TensorSpec([None, *a.shape[1:]], tf.float32) for a in arrays
        ]
        step = tf.function(step, input_signature=unknown_batch)
    return step(*map(tf.constant, arrays))


def _on_torch(f, arrays, compiled):
    import torch

    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    result = f(*tensors)
    gradients = torch.autograd.grad(result, tensors, materialize_grads=True)
    return result.detach(), gradients
