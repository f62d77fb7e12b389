"""Weights of the losses: numbers, schedules, and changes during training."""

import keras
import numpy as np
import pytest
from keras import ops
from small_models import crossentropy, labels, mlp, rows, standing_still

import keras_dskd
from keras_dskd.distiller import config

# Sums and quotients of a few float32 numbers.
CLOSE = {"rel": 1e-5, "abs": 1e-7}

X = {"teacher": rows(8, 6, seed=1), "student": rows(8, 4, seed=2)}
Y = labels(8)


def distiller(loss_weights=None, losses=1, optimizer=None, **kwargs):
    """Has at most two losses with different values: of the outputs and of "hidden"."""
    feature = keras.distillation.FeatureDistillation
    made = keras_dskd.Distiller(
        mlp(6, name="teacher", seed=10),
        mlp(4),
        [feature(), feature("mae", "hidden", "hidden")][:losses],
        distillation_loss_weights=loss_weights,
        **kwargs,
    )
    made.compile(optimizer or standing_still(), crossentropy())
    return made


def fit(made, **kwargs):
    """One batch per epoch, so that each epoch's values are those of one step."""
    kwargs = {"batch_size": 8, "verbose": 0, **kwargs}
    return made.fit(X, Y, **kwargs).history


class Assigns(keras.callbacks.Callback):
    """Calls `assign(distiller, epoch)` before each epoch."""

    def __init__(self, assign):
        super().__init__()
        self.assign = assign

    def on_epoch_begin(self, epoch, logs=None):
        self.assign(self.model, epoch)


# Numbers


def test_a_weight_below_one_for_a_single_loss_is_kept():
    history = fit(distiller([0.1]))
    term = history["feature_distillation"][0]
    assert term > 0.01
    assert history["distillation_loss"][0] == pytest.approx(0.1 * term, **CLOSE)


def test_a_single_loss_accepts_a_number_instead_of_a_list():
    history = fit(distiller(0.25))
    term = history["feature_distillation"][0]
    assert history["distillation_loss"][0] == pytest.approx(0.25 * term, **CLOSE)


def test_weights_are_not_normalized():
    history = fit(distiller([3.0, 0.5], losses=2))
    first, second = history["feature_distillation"], history["feature_distillation_1"]
    expected = 3.0 * first[0] + 0.5 * second[0]
    assert history["distillation_loss"][0] == pytest.approx(expected, **CLOSE)


def test_weights_default_to_one():
    assert distiller(losses=2).distillation_loss_weights == [1.0, 1.0]
    history = fit(distiller(losses=2))
    expected = history["feature_distillation"][0] + history["feature_distillation_1"][0]
    assert history["distillation_loss"][0] == pytest.approx(expected, **CLOSE)


def test_a_weight_of_zero_keeps_the_metric():
    history = fit(distiller([0.0, 2.0], losses=2))
    second = history["feature_distillation_1"][0]
    assert history["distillation_loss"][0] == pytest.approx(2.0 * second, **CLOSE)
    assert history["feature_distillation"][0] > 0


def test_a_numpy_number_is_accepted_as_a_weight():
    made = distiller(np.float32(0.5), student_loss_weight=np.float64(0.25))
    assert made.distillation_loss_weights == [0.5]
    assert made.student_loss_weight == 0.25


# Schedules


def test_a_schedule_is_read_at_each_step_of_a_compiled_fit():
    """Steps count batches from 0 and continue in the next `fit`."""
    schedule = keras.optimizers.schedules.PolynomialDecay(0.0, 4, 1.0)
    made = distiller(schedule)
    history = fit(made, epochs=3)
    ratios = np.divide(history["distillation_loss"], history["feature_distillation"])
    np.testing.assert_allclose(ratios, [0.0, 0.25, 0.5], rtol=1e-5)  # float32
    history = fit(made, epochs=3)
    ratios = np.divide(history["distillation_loss"], history["feature_distillation"])
    np.testing.assert_allclose(ratios, [0.75, 1.0, 1.0], rtol=1e-5)  # float32


def test_a_schedule_counts_batches_within_an_epoch():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], [1.0, 5.0])
    made = distiller(schedule)
    first, second = halves(made)
    history = fit(made, batch_size=4, shuffle=False)
    expected = (first + 5 * second) / 2
    assert history["distillation_loss"][0] == pytest.approx(expected, **CLOSE)


def halves(made):
    """The first loss of both halves of the data, computed without the distiller."""
    teacher = made.teacher.predict(X["teacher"], verbose=0)
    student = made.student.predict(X["student"], verbose=0)
    squares = (teacher - student) ** 2
    return np.mean(squares[:4]), np.mean(squares[4:])


def test_any_function_of_the_step_is_accepted_as_a_weight():
    history = fit(distiller(lambda step: ops.cast(step, "float32") ** 2), epochs=3)
    ratios = np.divide(history["distillation_loss"], history["feature_distillation"])
    np.testing.assert_allclose(ratios, [0.0, 1.0, 4.0], rtol=1e-5)  # float32


def test_evaluation_does_not_count_steps():
    schedule = keras.optimizers.schedules.PolynomialDecay(0.0, 4, 1.0)
    made = distiller(schedule)
    made.evaluate(X["student"], Y, batch_size=2, verbose=0)
    history = fit(made, epochs=3, validation_data=(X["student"], Y))
    made.predict(X["student"], batch_size=2, verbose=0)
    history = fit(made, epochs=1)
    ratio = history["distillation_loss"][0] / history["feature_distillation"][0]
    assert ratio == pytest.approx(0.75, **CLOSE)


# Changes during training


def test_a_list_assigned_by_a_callback_takes_effect_in_the_compiled_step():
    def assign(made, epoch):
        made.distillation_loss_weights = [1.0 + epoch, 0.0]

    history = fit(distiller(losses=2), epochs=3, callbacks=[Assigns(assign)])
    ratios = np.divide(history["distillation_loss"], history["feature_distillation"])
    np.testing.assert_allclose(ratios, [1.0, 2.0, 3.0], rtol=1e-5)  # float32


def test_an_item_assigned_by_a_callback_takes_effect_in_the_compiled_step():
    def assign(made, epoch):
        made.distillation_loss_weights[1] = float(epoch)

    made = distiller([0.0, 9.0], losses=2)
    history = fit(made, epochs=3, callbacks=[Assigns(assign)])
    ratios = np.divide(history["distillation_loss"], history["feature_distillation_1"])
    np.testing.assert_allclose(ratios, [0.0, 1.0, 2.0], rtol=1e-5, atol=1e-7)
    assert made.distillation_loss_weights == [0.0, 2.0]


def test_a_weight_assigned_between_two_batches_takes_effect_at_the_second():
    class BetweenBatches(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.model.distillation_loss_weights = [1.0 if batch == 0 else 5.0]

    made = distiller()
    first, second = halves(made)
    history = fit(made, batch_size=4, shuffle=False, callbacks=[BetweenBatches()])
    expected = (first + 5 * second) / 2
    assert history["distillation_loss"][0] == pytest.approx(expected, **CLOSE)


def test_assigning_between_two_batches_keeps_the_training_state():
    """On JAX, the state of an epoch is kept outside the variables."""

    class Touches(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.model.distillation_loss_weights[0] = 1.0
            self.model.student_loss_weight = 0.5

    trained = []
    for callbacks in ([], [Touches()]):
        made = distiller(optimizer=keras.optimizers.Adam(0.1))
        fit(made, batch_size=2, shuffle=False, callbacks=callbacks)
        trained.append(made.student.get_weights())
    for touched, untouched in zip(*trained, strict=True):
        # The same operations, possibly compiled twice.
        np.testing.assert_allclose(touched, untouched, rtol=1e-5, atol=1e-6)


def test_a_schedule_may_replace_a_number_between_epochs():
    def assign(made, epoch):
        if epoch == 1:
            made.distillation_loss_weights = [
                keras.optimizers.schedules.PolynomialDecay(0.0, 4, 1.0)
            ]
        if epoch == 3:
            made.distillation_loss_weights[0] = 7.0

    history = fit(distiller(2.0), epochs=4, callbacks=[Assigns(assign)])
    ratios = np.divide(history["distillation_loss"], history["feature_distillation"])
    np.testing.assert_allclose(ratios, [2.0, 0.25, 0.5, 7.0], rtol=1e-5)  # float32


def test_the_students_weight_may_be_assigned_at_any_time():
    """Also to and from 0 and 1, which skip one half of the step."""
    given = [0.5, 0.25, 0.0, 1.0, 0.75]

    def assign(made, epoch):
        made.student_loss_weight = given[epoch]

    made = distiller()
    history = fit(made, epochs=5, callbacks=[Assigns(assign)])
    student = np.array(history["student_loss"])
    term = fit(made)["distillation_loss"][0]
    given = np.array(given)
    expected = given * student + (1 - given) * term
    np.testing.assert_allclose(history["loss"], expected, rtol=1e-5)  # float32
    np.testing.assert_allclose(history["total_loss"], expected, rtol=1e-5)
    assert made.student_loss_weight == 0.75


@pytest.mark.parametrize("student_loss_weight", [0.0, 1.0])
def test_an_extreme_weight_set_before_fit_equals_one_given_at_construction(
    student_loss_weight,
):
    assigned = distiller()
    assigned.student_loss_weight = student_loss_weight
    given = distiller(student_loss_weight=student_loss_weight)
    expected, received = fit(given), fit(assigned)
    assert set(received) == set(expected)
    for name, values in expected.items():
        assert received[name] == pytest.approx(values, **CLOSE)


def test_loss_weights_are_not_trained():
    made = distiller(losses=2, optimizer=keras.optimizers.Adam(0.1))
    fit(made, epochs=2)
    assert made.distillation_loss_weights == [1.0, 1.0]
    assert len(made.trainable_variables) == len(made.student.trainable_variables)


def test_assigning_keeps_the_trained_weights():
    """A new kind of weight compiles a new program, which continues the training."""
    made = distiller(optimizer=keras.optimizers.Adam(0.1))
    fit(made, epochs=2)
    before = made.student.get_weights()
    made.student_loss_weight = 0.0
    made.distillation_loss_weights = [lambda step: 1.0]
    for kept, weight in zip(before, made.student.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, weight)


# Wrong uses of the list


def test_the_number_of_weights_cannot_change():
    made = distiller(losses=2)
    with pytest.raises(TypeError, match="number of weights is fixed"):
        made.distillation_loss_weights.append(1.0)
    with pytest.raises(TypeError, match="Assign an item or the whole list"):
        del made.distillation_loss_weights[0]
    with pytest.raises(
        ValueError, match="each of the 2 distillation losses.*Received 1"
    ):
        made.distillation_loss_weights = [1.0]


def test_a_wrong_weight_leaves_the_weights_unchanged():
    made = distiller([0.5, 2.0], losses=2)
    with pytest.raises(ValueError, match=r"distillation_loss_weights\[1\].*-1"):
        made.distillation_loss_weights[1] = -1
    with pytest.raises(ValueError, match="between 0 and 1.*student_loss_weight=2"):
        made.student_loss_weight = 2
    assert made.distillation_loss_weights == [0.5, 2.0]
    assert made.student_loss_weight == 0.5


def test_each_training_step_is_counted_once_for_every_kind_of_weight():
    made = distiller(student_loss_weight=1.0)
    fit(made, epochs=2, batch_size=4)
    made.student_loss_weight = 0.5
    fit(made, epochs=1, batch_size=4)
    assert int(ops.convert_to_numpy(made._term_weights.step)) == 6


def test_numbers_and_schedules_survive_serialization():
    schedule = keras.optimizers.schedules.CosineDecay(0.5, 10)
    assert config.deserialize_weight(config.serialize_weight(0.25)) == 0.25
    again = config.deserialize_weight(config.serialize_weight(schedule))
    assert again.get_config() == schedule.get_config()
