"""EMATeacher: the teacher's weights average the student's over batches."""

import keras
import numpy as np
import pytest
from small_models import cnn, copy_of, crossentropy, images, labels, mlp, rows

import keras_dskd
from keras_dskd.callbacks import EMATeacher
from keras_dskd.losses import SoftTargets

N, BATCH = 12, 4


class Recorded(keras.callbacks.Callback):
    """The student's weights after each batch."""

    def on_train_begin(self, logs=None):
        self.after = []

    def on_train_batch_end(self, batch, logs=None):
        self.after.append(self.model.student.get_weights())


def distiller(teacher, student):
    made = keras_dskd.Distiller(teacher, student, SoftTargets())
    made.compile(keras.optimizers.SGD(0.5), crossentropy())
    return made


def train(made, x, callback, epochs=1):
    recorded = Recorded()
    made.fit(
        x, labels(N), batch_size=BATCH, epochs=epochs, shuffle=False, verbose=0,
        callbacks=[recorded, callback],
    )  # fmt: skip
    return recorded.after


def averaged(start, after, momentum):
    for step, weights in enumerate(after):
        m = momentum(step)
        start = [m * t + (1 - m) * s for t, s in zip(start, weights, strict=True)]
    return start


def test_the_teacher_averages_the_student_and_teaches_what_it_became():
    """Batch statistics included, over two epochs. The next step reads the average."""
    student = cnn(1)
    made = distiller(copy_of(student), student)
    start = [w.astype("float64") for w in made.teacher.get_weights()]
    after = train(made, images(N), EMATeacher(0.75), epochs=2)
    assert len(after) == 2 * N // BATCH
    expected = averaged(start, after, lambda step: 0.75)
    for teacher, value in zip(made.teacher.get_weights(), expected, strict=True):
        np.testing.assert_allclose(teacher, value, rtol=1e-5, atol=1e-6)
    # A model that stands still sees the teacher that the callback left.
    made.optimizer.learning_rate = 0.0
    forward = made(images(N), training=True)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(forward.teacher["(output)"]),
        made.teacher.predict(images(N), verbose=0),
        rtol=1e-4,
        atol=1e-5,
    )


def test_a_changing_teacher_changes_the_loss_in_the_next_step():
    """With momentum 0 the teacher is the student of the step before."""
    student = mlp(4)
    teacher = copy_of(student)
    teacher.set_weights([3 * weight for weight in teacher.get_weights()])
    made = distiller(teacher, student)
    made.optimizer.learning_rate = 0.0
    seen = []
    log = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(logs["soft_targets"])
    )
    x = np.tile(rows(BATCH, 4), (3, 1))
    made.fit(
        x, labels(N), batch_size=BATCH, verbose=0, shuffle=False,
        callbacks=[EMATeacher(0.0), log],
    )  # fmt: skip
    first, second, third = seen  # Means over the epoch so far.
    assert first > 1e-3
    assert second == pytest.approx(first / 2, rel=1e-4)
    assert third == pytest.approx(first / 3, rel=1e-4)


def test_the_momentum_may_depend_on_the_step():
    """Steps count on over several `fit`s."""
    student = mlp(4)
    made = distiller(mlp(4, seed=30), student)
    steps = []

    def momentum(step):
        steps.append(step)
        return min(1 - 1 / (step + 1), 0.9)

    after = train(made, rows(N, 4), EMATeacher(momentum))
    after += train(made, rows(N, 4), EMATeacher(momentum))
    assert steps == list(range(6))
    # The plain mean of the weights so far.
    expected = [np.mean(weights, axis=0) for weights in zip(*after, strict=True)]
    for teacher, value in zip(made.teacher.get_weights(), expected, strict=True):
        np.testing.assert_allclose(teacher, value, rtol=1e-4, atol=1e-6)


def test_a_teacher_of_another_architecture_is_refused():
    for teacher, expected in [
        (mlp(4, hidden=6), r"has shape \(4, 6\), and the student's .*\(4, 5\)"),
        (cnn(1), "The teacher 'student' has 8 weights, and the student 4"),
    ]:
        with pytest.raises(ValueError, match=f"student's architecture.*{expected}"):
            train(distiller(teacher, mlp(4)), rows(N, 4), EMATeacher())


def test_a_model_without_one_teacher_is_refused():
    model = mlp(4)
    model.compile("sgd", crossentropy())
    with pytest.raises(ValueError, match="the one teacher of a keras_dskd.Distiller"):
        train(model, rows(N, 4), EMATeacher())


@pytest.mark.backend_neutral
@pytest.mark.parametrize("momentum", [-0.1, 1.5, "0.9", None])
def test_a_momentum_out_of_range_raises(momentum):
    with pytest.raises(ValueError, match="`momentum` must be a number between 0 and 1"):
        EMATeacher(momentum)
