"""Training under any `floatx` and dtype policy."""

import keras
import numpy as np
import pytest
from keras import ops
from small_models import crossentropy, labels, mlp, rows, standing_still

import keras_dskd
from keras_dskd import losses

pytestmark = pytest.mark.every_backend

X, Y = rows(8, 4), labels(8)


@pytest.fixture
def default_types():
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    yield
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)


def distiller(teacher, student):
    return keras_dskd.Distiller(
        teacher,
        student,
        [
            losses.SoftTargets(),
            losses.DecoupledDistillation(),
            losses.ContrastiveDistillation("hidden", "hidden"),
            losses.ChannelAlignment("hidden", "hidden"),
        ],
        projectors={"hidden": keras.layers.Dense(5, kernel_regularizer="l2")},
    )


def fit(model):
    model.compile(standing_still(), crossentropy(), metrics=["accuracy"])
    how = {"batch_size": 8, "verbose": 0, "validation_data": (X, Y)}
    return {name: values[-1] for name, values in model.fit(X, Y, **how).history.items()}


# JAX has no float64 unless it is switched on, and then computes in float32.
@pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64")
@pytest.mark.parametrize("floatx", ["float64", "float16"])
def test_any_floatx_trains_as_plain_keras_does(floatx, default_types):
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(floatx)
    student = mlp(4)
    expected = fit(student)
    made = distiller(mlp(4, name="teacher", seed=5), student)
    received = fit(made)
    assert all(map(np.isfinite, received.values()))
    # float16 has a precision of 0.001, and rounds each sum.
    tolerance = {"rel": 1e-6 if floatx == "float64" else 4e-3}
    assert received["student_loss"] == pytest.approx(expected["loss"], **tolerance)
    parts = received["student_loss"] + received["distillation_loss"]
    kernel = ops.convert_to_numpy(made.projectors["hidden"].kernel)
    penalty = 0.01 * np.sum(np.square(kernel.astype("float64")))
    assert received["total_loss"] == pytest.approx(
        0.5 * parts + penalty, rel=10 * tolerance["rel"]
    )


@pytest.mark.backend_neutral
def test_the_loss_is_scaled_as_the_students_compile_scales_it(default_types):
    keras.config.set_dtype_policy("mixed_float16")
    student = mlp(4)
    keras.config.set_dtype_policy("float32")
    made = distiller(mlp(4, name="teacher"), student)
    made.compile("adam", crossentropy())
    assert isinstance(made.optimizer, keras.optimizers.LossScaleOptimizer)
