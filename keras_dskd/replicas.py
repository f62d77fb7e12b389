"""What differs between backends and devices; the only module that imports one."""

import contextlib

import keras


def no_gradients():
    """A context in which torch records nothing for the backward pass.

    TensorFlow and JAX drop what a `stop_gradient` makes unreachable when they
    compile, so that nothing need be done for them. torch would keep every
    activation of the teacher alive.
    """
    if keras.backend.backend() == "torch":
        import torch

        return torch.no_grad()
    return contextlib.nullcontext()


def replica_count():
    """Number of replicas whose gradients are summed: 1 but under `tf.distribute`."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        return tensorflow.distribute.get_strategy().num_replicas_in_sync
    return 1


def split_over_replicas(loss):
    """Scales a replica's mean loss, so that the sum over replicas is the mean.

    Keras scales its own losses in the same way before gradients are summed.
    """
    count = replica_count()
    return loss if count == 1 else loss / count


def whole_of_replicas(loss):
    """Takes `split_over_replicas` back, for reporting."""
    count = replica_count()
    return loss if count == 1 else loss * count
