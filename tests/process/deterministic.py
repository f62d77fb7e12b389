"""Trains twice from one seed with deterministic kernels; prints a digest of each run.

A separate program, because TensorFlow cannot switch these kernels off again.
"""

import hashlib

import keras
import numpy as np
from seeds import set_seed
from small_models import cnn, crossentropy, images, labels

import keras_dskd
from keras_dskd import losses

X = {
    "teacher": images(16, 3, size=4),
    "student": images(16, 1, size=4),
    "teacher_mask": np.arange(16) % 5 > 0,
}
Y = labels(16)
LAYERS = {"teacher_layer_name": "relu0", "student_layer_name": "relu0"}
READS = {
    "SoftTargets": {},
    "DecoupledDistillation": {},
    "SpatialUniformity": {"student_layer_name": "relu0"},
}


def only_deterministic_kernels():
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    elif keras.backend.backend() == "torch":
        import torch

        torch.use_deterministic_algorithms(True)


def distiller():
    """Uses all losses, those of both recipes included, with ramp and projector."""
    terms = [
        losses.ChannelIndependence("gap", "gap", target="self"),
        losses.ChannelAlignment("relu0", "relu0", rows="positions"),
        losses.SpatialUniformity("relu0", rows="positions"),
    ]
    for name in losses.__all__:
        terms.append(getattr(losses, name)(**READS.get(name, LAYERS)))
    ramp = keras.optimizers.schedules.PolynomialDecay(0.0, 3, 0.2, power=1.0)
    return keras_dskd.Distiller(
        cnn(3, (4,), "teacher", size=4),
        cnn(1, (3,), size=4, extra=[keras.layers.Dropout(0.3)]),
        terms,
        distillation_loss_weights=[ramp] + [0.1] * (len(terms) - 1),
        projectors={"relu0": keras.layers.Dense(4)},
    )


def training():
    """A digest of all values in the log and of all weights."""
    keras.utils.clear_session()
    set_seed(7)
    made = distiller()
    made.compile("adam", crossentropy())
    log = made.fit(X, Y, batch_size=8, verbose=0).history
    assert np.isfinite(list(log.values())).all()
    digest = hashlib.sha256(np.array([log[name] for name in sorted(log)]).tobytes())
    for weight in made.weights:
        digest.update(keras.ops.convert_to_numpy(weight).tobytes())
    return digest.hexdigest()


only_deterministic_kernels()
print(training())
print(training())
