"""An error or interrupt during a pass over data leaves teacher and student intact.

On JAX, the trainer removes the values from the variables during a pass.
"""

import contextlib
import signal

import keras
import numpy as np
import pytest
from small_models import crossentropy, labels, mlp, rows, standing_still

import keras_dskd
from keras_dskd.features.feature_model import FeatureModel

pytestmark = pytest.mark.every_backend

N, BATCH = 12, 4
TEACHER, STUDENT = rows(N, 6, seed=1), rows(N, 4, seed=2)
Y = labels(N)


X = {"teacher": TEACHER, "student": STUDENT}


def distiller(**kwargs):
    made = keras_dskd.Distiller(
        mlp(6, name="teacher", seed=10),
        mlp(4),
        keras_dskd.losses.ChannelAlignment("hidden", "hidden"),
    )
    made.compile(standing_still(), crossentropy(), **kwargs)
    return made


@pytest.fixture(scope="module")
def made():
    """One distiller for all tests, because it must survive each of them."""
    return distiller()


@contextlib.contextmanager
def nothing_is_lost(made):
    before = made.teacher.get_weights() + made.student.get_weights()
    loss = made.evaluate(STUDENT, Y, batch_size=BATCH, verbose=0)
    yield
    after = made.teacher.get_weights() + made.student.get_weights()
    for one, other in zip(after, before, strict=True):
        np.testing.assert_array_equal(one, other)
    assert made.evaluate(STUDENT, Y, batch_size=BATCH, verbose=0) == loss


class Broken(keras.utils.PyDataset):
    """Raises in the third batch."""

    def __init__(self, x, error=OSError):
        super().__init__()
        self.x, self.error = x, error

    def __len__(self):
        return N // BATCH

    def __getitem__(self, index):
        if index == 2:
            raise self.error("Broken file.")
        part = slice(index * BATCH, (index + 1) * BATCH)
        return keras.tree.map_structure(lambda array: array[part], (self.x, Y))


class Stops(keras.callbacks.Callback):
    """Interrupts after the second batch."""

    def stop(self, batch, logs=None):
        if batch == 1:
            raise KeyboardInterrupt("Stopped.")

    on_test_batch_end = on_predict_batch_end = stop


def test_evaluation_without_labels_loses_nothing(made):
    with nothing_is_lost(made), pytest.raises(ValueError, match="Labels are missing"):
        made.evaluate(STUDENT, verbose=0)


def test_prediction_on_the_teachers_modality_loses_nothing(made):
    expected = "does not fit the student.*modality of 'teacher' alone"
    with nothing_is_lost(made), pytest.raises(ValueError, match=expected):
        made.predict(TEACHER, verbose=0)


def test_validation_on_the_wrong_modality_loses_nothing(made):
    # TensorFlow's step, compiled for width 4 and then for another, accepts any width.
    expected = "not fit the student|size-incompatible"
    with nothing_is_lost(made), pytest.raises(Exception, match=expected):
        made.fit(X, Y, batch_size=BATCH, validation_data=(TEACHER, Y), verbose=0)


@pytest.mark.parametrize("task", ["evaluate", "predict"])
def test_data_that_raise_lose_nothing(task, made):
    # TensorFlow wraps the error in one of its own.
    with nothing_is_lost(made), pytest.raises(Exception, match="Broken file"):
        getattr(made, task)(Broken(STUDENT), verbose=0)


@pytest.mark.parametrize("task", ["evaluate", "predict"])
def test_an_interrupt_loses_nothing(task, made):
    with nothing_is_lost(made), pytest.raises(KeyboardInterrupt, match="Stopped"):
        y = [Y] if task == "evaluate" else []
        getattr(made, task)(
            STUDENT, *y, batch_size=BATCH, callbacks=[Stops()], verbose=0
        )


def test_caching_data_that_raise_loses_nothing(made):
    with nothing_is_lost(made), pytest.raises(Exception, match="Broken file"):
        made.cache_teacher(Broken(TEACHER), verbose=0)


@pytest.mark.parametrize("is_on_disk", [False, True])
def test_interrupted_caching_loses_nothing(is_on_disk, made, tmp_path, monkeypatch):
    """During a step, whose inputs are already deleted and which returns nothing."""
    make = FeatureModel.make_predict_function

    def making(model, force=False):
        make(model, force)
        step = model.predict_function

        def interrupted(*args):
            step(*args)
            raise KeyboardInterrupt("Stopped.")

        model.predict_function = interrupted

    path = tmp_path / "cache" if is_on_disk else None
    with monkeypatch.context() as patch, nothing_is_lost(made):
        patch.setattr(FeatureModel, "make_predict_function", making)
        with pytest.raises(KeyboardInterrupt, match="Stopped"):
            made.cache_teacher(TEACHER, path, BATCH, verbose=0)
    made.cache_teacher(TEACHER, path, BATCH, verbose=0)


@pytest.fixture
def interruptible():
    """A process started in the background of a shell may ignore interrupts."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


def test_interrupted_training_loses_nothing(interruptible, monkeypatch):
    """During a step, as by Ctrl-C: Python handles it when the step returns."""
    make = keras.Model.make_train_function

    def making(model, force=False):
        make(model, force)
        step = model.train_function

        def interrupted(*args):
            result = step(*args)
            signal.raise_signal(signal.SIGINT)
            return result

        model.train_function = interrupted

    made = distiller()
    with monkeypatch.context() as patch, nothing_is_lost(made):
        patch.setattr(keras.Model, "make_train_function", making)
        with pytest.raises(KeyboardInterrupt, match="^$"):
            made.fit(X, Y, batch_size=BATCH, verbose=0)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="Keras has one step at a time on torch"
)
def test_training_data_that_raise_between_steps_compiled_together_lose_nothing():
    made = distiller(steps_per_execution=3)
    with nothing_is_lost(made), pytest.raises(Exception, match="Broken file"):
        made.fit(Broken(X), shuffle=False, verbose=0)


@pytest.mark.filterwarnings("ignore:.*ran out of data")
def test_training_data_that_end_early_lose_nothing(made):
    """Keras warns; on JAX it would continue with new random numbers."""

    def batches():
        for start in range(0, N, BATCH):
            part = slice(start, start + BATCH)
            yield {"teacher": TEACHER[part], "student": STUDENT[part]}, Y[part]

    with nothing_is_lost(made):
        made.fit(
            batches(),
            steps_per_epoch=N // BATCH,
            epochs=2,
            validation_data=(STUDENT, Y),
            shuffle=False,
            verbose=0,
        )
