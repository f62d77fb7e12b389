"""Models whose graph does not show what they return: a few predictions do."""

import warnings

import keras
import numpy as np
import pytest
import reference
from keras import layers, ops

import keras_dskd
from keras_dskd.data.first_rows import first_rows
from keras_dskd.distiller.first_predictions import check_first_predictions
from keras_dskd.losses import BinarySoftTargets, HardTargets, SoftTargets

X = reference.samples(24, 4).astype("float32")
Y = np.arange(24) % 3


class Hidden(keras.Model):
    """A subclassed model, whose activation nothing shows."""

    def __init__(self, activation, name):
        super().__init__(name=name)
        self.dense, self.activation = layers.Dense(3, name="dense"), activation

    def call(self, x):
        return self.activation(self.dense(x))


def logits(x):
    return x


def distiller(loss, teacher=logits, student=logits):
    models = Hidden(teacher, "teacher"), Hidden(student, "student")
    models[0](X[:1])
    made = keras_dskd.Distiller(*models, loss)
    made.compile("sgd", "cosine_similarity")
    return made


def fit(made, x=X, y=None, **kwargs):
    if y is None and not hasattr(x, "__next__"):
        y = np.eye(3)[Y]
    return made.fit(x, y, verbose=0, **kwargs).history


def test_hidden_probabilities_that_pass_for_logits_raise():
    expected = r"teacher, whose outputs sum to 1.*SoftTargets\(teacher_from_logits=Fal"
    with pytest.raises(ValueError, match=expected):
        fit(distiller(SoftTargets(), teacher=ops.softmax))
    expected = r"student, whose outputs sum to 1.*HardTargets\(student_from_logits=Fal"
    with pytest.raises(ValueError, match=expected):
        fit(distiller(HardTargets(), student=ops.softmax))
    fit(distiller(SoftTargets(teacher_from_logits=False), teacher=ops.softmax))


def test_hidden_logits_that_pass_for_probabilities_raise():
    loss = SoftTargets(teacher_from_logits=False)
    with pytest.raises(ValueError, match="are not the result of a softmax"):
        fit(distiller(loss))
    loss = BinarySoftTargets(student_from_logits=False)
    with pytest.raises(ValueError, match="are not the result of a sigmoid"):
        fit(distiller(loss))


def test_a_hidden_sigmoid_that_passes_for_logits_warns():
    made = distiller(BinarySoftTargets(), teacher=ops.sigmoid)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        check_first_predictions(made, X)
    (message,) = [str(warning.message) for warning in caught]
    assert "all between 0 and 1" in message
    assert "BinarySoftTargets(teacher_from_logits=False)" in message


def test_a_hidden_softmax_with_a_loss_of_labels_raises():
    with pytest.raises(ValueError, match=r"Use SoftTargets\(teacher_from_logits=False"):
        fit(distiller(BinarySoftTargets(), teacher=ops.softmax))


def test_samples_without_a_teacher_do_not_count():
    mask = np.arange(24) % 2 == 0
    x = {"teacher": np.where(mask[:, None], X, np.nan), "student": X}
    with pytest.raises(ValueError, match="teacher, whose outputs sum to 1"):
        fit(
            distiller(SoftTargets(), teacher=ops.softmax),
            {**x, "teacher_mask": mask},
        )


def test_cached_probabilities_are_recognized():
    made = distiller(SoftTargets(), teacher=ops.softmax)
    cached = made.cache_teacher(X, verbose=0)
    with pytest.raises(ValueError, match="teacher, whose outputs sum to 1"):
        fit(made, {"student": X, "teacher_features": cached})


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        rows = slice(8 * index, 8 * index + 8)
        return X[rows], np.eye(3)[Y[rows]]


def batches():
    for index in range(3):
        yield Batches()[index]


@pytest.mark.parametrize("make", [Batches, batches])
def test_data_sets_and_generators_are_read(make):
    with pytest.raises(ValueError, match="teacher, whose outputs sum to 1"):
        distiller(SoftTargets(), teacher=ops.softmax).fit(make(), verbose=0)


def test_a_generator_loses_no_batch():
    _, data = first_rows(batches())
    np.testing.assert_array_equal(np.concatenate([x for x, _ in data]), X)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_probabilities_in_half_precision_raise(dtype):
    values = ops.convert_to_numpy(ops.cast(ops.softmax(X), dtype))
    with pytest.raises(ValueError, match="student, whose outputs sum to 1"):
        SoftTargets().validate_predictions("student", values)
    SoftTargets(student_from_logits=False).validate_predictions("student", values)
    with pytest.raises(ValueError, match="are between"):
        SoftTargets(student_from_logits=False).validate_predictions(
            "student", ops.convert_to_numpy(ops.cast(X, dtype))
        )


def test_no_predictions_show_nothing():
    loss = SoftTargets(teacher_from_logits=False)
    made = distiller(loss, teacher=ops.softmax)
    x = {"teacher": X, "student": X, "teacher_mask": np.zeros(24, bool)}
    assert check_first_predictions(made, x) is x


def test_hidden_probabilities_with_a_mask_of_steps_raise():
    class Masked(Hidden):
        def call(self, x):
            return self.activation(self.dense(layers.Masking()(x)))

    x = np.zeros((2, 3, 4), "float32")
    x[:, :2] = X[:4].reshape(2, 2, 4)
    softmax = layers.Activation("softmax")
    for loss in (SoftTargets(), SoftTargets(teacher_from_logits=False)):
        teacher, student = Masked(softmax, "teacher"), Masked(layers.Identity(), "s")
        teacher(x)
        made = keras_dskd.Distiller(teacher, student, loss)
        if loss.teacher_from_logits:
            with pytest.raises(ValueError, match="teacher, whose outputs sum to 1"):
                check_first_predictions(made, x)
        else:
            assert check_first_predictions(made, x) is x


def test_a_torch_data_loader_is_read_without_its_random_state():
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True)
    state = torch.get_rng_state()
    rows, same = first_rows(loader)
    np.testing.assert_array_equal(rows, X[:16])
    assert same is loader and torch.equal(state, torch.get_rng_state())


def test_a_tf_data_set_is_read():
    tf = pytest.importorskip("tensorflow")
    data = tf.data.Dataset.from_tensor_slices(({"student": X}, Y)).batch(8)
    rows, _ = first_rows(data)
    np.testing.assert_array_equal(rows["student"], X[:8])


def test_models_whose_graph_is_known_are_not_run(monkeypatch):
    inputs = keras.Input((4,))
    models = [keras.Model(inputs, layers.Dense(3)(inputs), name=n) for n in "ts"]
    made = keras_dskd.Distiller(*models, SoftTargets())
    made.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    monkeypatch.setattr(
        "keras_dskd.distiller.first_predictions.first_rows", lambda x: pytest.fail()
    )
    made.fit(X, Y, verbose=0)


# Keras says so of any data without a length.
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_loader_of_a_data_set_without_a_length_trains():
    torch = pytest.importorskip("torch")

    class Samples(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield from zip(X, Y, strict=True)

    loader = torch.utils.data.DataLoader(Samples(), batch_size=12)
    assert first_rows(loader) == (None, loader)
    identity = layers.Identity()
    made = keras_dskd.Distiller(
        Hidden(identity, "teacher"), Hidden(identity, "student"), SoftTargets()
    )
    made.teacher(X)
    made.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    made.fit(loader, shuffle=False, verbose=0)
    # On TensorFlow, Keras counts the batch that is missing.
    assert int(made.optimizer.iterations) in (2, 3)
