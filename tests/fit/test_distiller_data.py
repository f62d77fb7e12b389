"""Paired data, in every form that `fit` accepts."""

import operator

import keras
import numpy as np
import pytest
from keras import ops
from small_models import crossentropy, labels, mlp, numbers, rows, standing_still

import keras_dskd

pytestmark = pytest.mark.every_backend

N = 10
X = {"teacher": rows(N, 6, seed=1), "student": rows(N, 4, seed=2)}
Y = labels(N)
LABEL_MASK = np.array([0, 0, 0, 0, 1, 0, 0, 1, 1, 1], bool)  # None of the first batch.
WEIGHTS = np.linspace(0.5, 1.5, N).astype("float32")
# Ten samples make two batches of four and a smaller one of two.
BATCH = 4

# Means of the same numbers, summed in the order of each adapter.
CLOSE = {"rel": 1e-5, "abs": 1e-6}


def distiller(optimizer=None, **kwargs):
    made = keras_dskd.Distiller(
        mlp(6, name="teacher", seed=10),
        mlp(4),
        [
            keras.distillation.FeatureDistillation(),
            keras.distillation.FeatureDistillation("mse", "hidden", "hidden"),
        ],
        **kwargs,
    )
    made.compile(optimizer or standing_still(), crossentropy())
    return made


def batches(x=X, weighted=False):
    for start in range(0, N, BATCH):
        part = slice(start, start + BATCH)
        batch = (keras.tree.map_structure(operator.itemgetter(part), x), Y[part])
        yield (*batch, WEIGHTS[part]) if weighted else batch


class Batches(keras.utils.PyDataset):
    def __init__(self, x=X):
        super().__init__()
        self.batches = list(batches(x))

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


def tf_dataset(x=X):
    tensorflow = pytest.importorskip("tensorflow", reason="tf.data is not installed")
    return tensorflow.data.Dataset.from_tensor_slices((x, Y)).batch(BATCH)


def torch_loader(x=X):
    torch = pytest.importorskip("torch", reason="torch is not installed")

    class Samples(torch.utils.data.Dataset):
        def __len__(self):
            return N

        def __getitem__(self, index):
            return keras.tree.map_structure(lambda array: array[index], x), int(
                Y[index]
            )

    return torch.utils.data.DataLoader(Samples(), batch_size=BATCH)


FORMS = {
    "tf.data": tf_dataset,
    "PyDataset": Batches,
    "DataLoader": torch_loader,
    "generator": batches,
}


def expected_terms(x=X):
    """The losses of one epoch, computed without the distiller."""
    made = distiller()
    teacher = made.teacher.predict(x["teacher"], verbose=0)
    student = made.student.predict(x["student"], verbose=0)
    logits = student.astype("float64")
    log_softmax = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    labeled = np.flatnonzero(x.get("label_mask", np.ones(N)))
    return {
        "feature_distillation": np.mean((teacher - student) ** 2),
        "student_loss": -log_softmax[labeled, Y[labeled]].mean(),
    }


def assert_terms(received, expected):
    for name, value in expected.items():
        assert received[name] == pytest.approx(value, **CLOSE)


def test_arrays_give_the_expected_losses():
    assert_terms(
        numbers(distiller().fit(X, Y, batch_size=BATCH, verbose=0)), expected_terms()
    )


@pytest.mark.parametrize("x", [X, X | {"label_mask": LABEL_MASK}], ids=["", "masked"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_data_gives_the_losses_of_arrays(form, x):
    # Keras warns if it cannot shuffle or does not know the length.
    history = distiller().fit(
        FORMS[form](x), steps_per_epoch=3, shuffle=False, verbose=0
    )
    assert_terms(numbers(history), expected_terms(x))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_data_can_be_evaluated_and_predicted(form):
    made = distiller()
    expected = expected_terms()["student_loss"]
    evaluation = {"steps": 3, "verbose": 0, "return_dict": True}
    received = made.evaluate(FORMS[form](), **evaluation)
    assert received["loss"] == pytest.approx(expected, **CLOSE)
    received = made.evaluate(FORMS[form](X["student"]), **evaluation)
    assert received["loss"] == pytest.approx(expected, **CLOSE)
    if form != "generator":
        # From a generator `predict` takes inputs only.
        prediction = made.predict(FORMS[form](), verbose=0)
        plain = made.student.predict(X["student"], verbose=0)
        np.testing.assert_allclose(prediction, plain, rtol=1e-5, atol=1e-6)  # float32


@pytest.mark.parametrize("form", ["arrays", "generator"])
def test_sample_weights_of_arrays_and_generators_count(form):
    made = distiller()
    if form == "arrays":
        history = made.fit(X, Y, batch_size=N, sample_weight=WEIGHTS, verbose=0)
    else:
        history = made.fit(
            batches(weighted=True), steps_per_epoch=3, shuffle=False, verbose=0
        )
    made.student.compile(standing_still(), crossentropy())
    size = N if form == "arrays" else BATCH
    expected = made.student.fit(
        X["student"],
        Y,
        batch_size=size,
        sample_weight=WEIGHTS,
        shuffle=False,
        verbose=0,
    )
    assert numbers(history)["student_loss"] == pytest.approx(
        numbers(expected)["loss"], **CLOSE
    )


def test_modalities_stay_paired_when_shuffled():
    """The teacher's output is the student's input; any other pairing shows."""
    inputs = keras.Input((1,))
    teacher = keras.Model(inputs, keras.layers.Rescaling(1.0)(inputs))
    other = keras.Input((1,))
    student = keras.Model(
        other, keras.layers.Dense(1, kernel_initializer="ones")(other)
    )
    made = keras_dskd.Distiller(
        teacher,
        student,
        keras.distillation.FeatureDistillation(),
        student_loss_weight=0.0,
    )
    made.compile(standing_still())
    x = np.arange(32.0, dtype="float32")[:, None]
    received = made.fit({"teacher": x, "student": x}, batch_size=4, verbose=0)
    assert numbers(received)["loss"] == 0.0


def test_validation_split_splits_both_modalities():
    made = distiller()
    received = numbers(made.fit(X, Y, validation_split=0.4, verbose=0))
    made.student.compile(loss=crossentropy())
    expected = made.student.evaluate(X["student"][6:], Y[6:], verbose=0)
    assert received["val_loss"] == pytest.approx(expected, **CLOSE)
    teacher, student = (
        model.predict(X[model.name][:6], verbose=0)
        for model in (made.teacher, made.student)
    )
    expected = np.mean((teacher - student) ** 2)
    assert received["feature_distillation"] == pytest.approx(expected, **CLOSE)


@pytest.mark.parametrize(
    "validation_data",
    [(X, Y), (X["student"], Y), ({"student": X["student"]}, Y), Batches(), None],
    ids=["paired", "student", "student in a dict", "paired PyDataset", "none"],
)
def test_validation_data_may_be_pairs_or_the_students_inputs(validation_data):
    made = distiller()
    received = numbers(made.fit(X, Y, validation_data=validation_data, verbose=0))
    if validation_data is None:
        assert not [name for name in received if name.startswith("val_")]
        return
    expected = expected_terms()["student_loss"]
    assert received["val_loss"] == pytest.approx(expected, **CLOSE)


def test_smaller_last_batch_counts_by_its_size():
    """In the distillation losses as in the student's loss."""
    made = distiller()
    teacher = made.teacher.predict(X["teacher"], verbose=0)
    student = made.student.predict(X["student"], verbose=0)
    squares = np.mean((teacher - student) ** 2, axis=1)
    received = numbers(made.fit(X, Y, batch_size=BATCH, shuffle=False, verbose=0))
    means = [squares[start : start + BATCH].mean() for start in range(0, N, BATCH)]
    expected = np.average(means, weights=[4, 4, 2])
    assert received["feature_distillation"] == pytest.approx(expected, **CLOSE)
    total = 0.5 * received["student_loss"] + 0.5 * received["distillation_loss"]
    assert received["loss"] == pytest.approx(total, **CLOSE)
    assert received["total_loss"] == pytest.approx(total, **CLOSE)


def test_float64_and_integer_arrays_train():
    made = distiller(keras.optimizers.SGD(0.1))
    x = {"teacher": X["teacher"].astype("float64"), "student": np.ones((N, 4), "int32")}
    values = numbers(made.fit(x, Y, verbose=0))
    teacher = made.teacher.predict(X["teacher"], verbose=0)
    assert all(np.isfinite(value) for value in values.values())
    assert teacher.dtype == np.float32


def test_cache_of_a_data_set_equals_that_of_its_arrays():
    made = distiller()
    from_arrays = made.cache_teacher(X["teacher"], batch_size=3)
    teacher_alone = [batch["teacher"] for batch, _ in batches()]

    class Inputs(keras.utils.PyDataset):
        def __len__(self):
            return len(teacher_alone)

        def __getitem__(self, index):
            return (teacher_alone[index],)

    from_dataset = made.cache_teacher(Inputs())
    assert set(from_arrays) == set(from_dataset)
    for name, feature in from_arrays.items():
        # Batches of three and of four.
        np.testing.assert_allclose(from_dataset[name], feature, rtol=1e-5, atol=1e-6)
    hidden = made.teacher.get_layer("hidden").output
    expected = keras.Model(made.teacher.inputs, hidden).predict(X["teacher"], verbose=0)
    np.testing.assert_allclose(from_arrays["hidden"], expected, rtol=1e-5, atol=1e-6)


def test_calling_the_distiller_gives_the_students_output():
    made = distiller()
    expected = ops.convert_to_numpy(made.student(X["student"]))
    for x in (X, X["student"]):
        received = ops.convert_to_numpy(made(x))
        np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-6)  # float32
