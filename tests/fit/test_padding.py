"""Steps that a Keras mask leaves out count in no distillation loss."""

import keras
import numpy as np
import pytest
import reference
from keras import layers, ops

import keras_dskd
from keras_dskd import losses
from keras_dskd.data import pairs
from keras_dskd.distiller.loss_values import loss_values
from keras_dskd.teacher_cache import manifest

N, STEPS, TOKENS, CLASSES = 6, 4, 9, 3
# Sums of some hundred products of order 1 in float32.
CLOSE = {"rel": 1e-4, "abs": 1e-5}


def encoder(width, seed):
    """Attention, a recurrent layer, and logits per step."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(TOKENS, width, mask_zero=True, name="tokens")(inputs)
    attended = layers.MultiHeadAttention(2, width)(x, x)
    x = layers.LayerNormalization()(layers.Add()([x, attended]))
    x = layers.GRU(width, return_sequences=True, name="states")(x)
    return keras.Model(inputs, layers.Dense(CLASSES, name="logits")(x))


def distilling(*given, **arguments):
    """A distiller that leaves the student unchanged."""
    made = keras_dskd.Distiller(encoder(5, 0), encoder(4, 1), list(given), **arguments)
    crossentropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile(keras.optimizers.SGD(0.0), crossentropy)
    return made


def every_kind():
    """Losses per position, on pooled features, and of Keras, and a projector."""
    return distilling(
        losses.SoftTargets(2.0),
        losses.ChannelAlignment("states", "states"),
        losses.RelationalDistillation("states", "tokens"),
        losses.AttentionTransfer("states", "tokens"),
        losses.SpatialUniformity("tokens", rows="positions"),
        keras.distillation.LogitsDistillation(temperature=3.0),
        projectors={
            "states": keras.Sequential(
                [layers.GlobalAveragePooling1D(), layers.Dense(5)]
            )
        },
    )


def tokens(lengths):
    drawn = np.random.default_rng(0).integers(1, TOKENS, (N, STEPS))
    return np.where(np.arange(STEPS) < np.reshape(lengths, (-1, 1)), drawn, 0)


def padded(x, steps=3):
    return np.pad(x, [(0, 0), (0, steps)])


def fit(distiller, x, **arguments):
    first = keras.tree.flatten(x)[0]
    y = np.zeros((N, first.shape[1]), "int32")
    logs = distiller.fit(x, y, batch_size=N, epochs=1, verbose=0, **arguments).history
    return {name: values[0] for name, values in logs.items()}


RAGGED = tokens([4, 3, 1, 2, 4, 2])


@pytest.fixture(scope="module")
def distiller():
    return every_kind()


def test_a_padded_batch_gives_the_losses_of_the_unpadded_one(distiller):
    whole = tokens([STEPS] * N)
    expected = fit(distiller, whole)
    assert fit(distiller, padded(whole)) == pytest.approx(expected, **CLOSE)
    more = fit(distiller, padded(RAGGED))
    assert more == pytest.approx(fit(distiller, RAGGED), **CLOSE)
    assert more["soft_targets"] != pytest.approx(expected["soft_targets"], **CLOSE)


def test_a_cache_gives_the_losses_of_the_live_teacher(distiller, tmp_path):
    expected = fit(distiller, RAGGED)
    for path in (None, tmp_path / "cache"):
        features = distiller.cache_teacher(RAGGED, path, batch_size=N, verbose=0)
        names = {"(output)", "(output) (mask)", "states", "states (mask)"}
        assert set(features) == names
        np.testing.assert_array_equal(features["states (mask)"], RAGGED != 0)
        cached = {"student": RAGGED, "teacher_features": features}
        assert fit(distiller, cached) == pytest.approx(expected, **CLOSE)


def test_a_cache_of_an_older_version_is_refused_if_the_teacher_masks(tmp_path):
    alignment = losses.ChannelAlignment("tokens", "tokens")
    distiller = keras_dskd.Distiller(embedding(4), embedding(4), alignment)
    distiller.cache_teacher(RAGGED, tmp_path, verbose=0)
    older = manifest.read_manifest(tmp_path)
    del older["step_masks"]
    manifest.write_manifest(tmp_path, older)
    with pytest.raises(ValueError, match="counted padded steps"):
        distiller.cache_teacher(RAGGED, tmp_path, verbose=0)


def embedding(width):
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(TOKENS, width, mask_zero=True, name="tokens")(inputs)
    return keras.Model(inputs, layers.Dense(CLASSES)(x))


def test_a_pooled_cache_holds_the_mean_over_real_steps():
    alignment = losses.ChannelAlignment("tokens", "tokens")
    distiller = keras_dskd.Distiller(embedding(4), embedding(4), alignment)
    x = np.concatenate([RAGGED[:-1], np.zeros_like(RAGGED[:1])])
    features = distiller.cache_teacher(x, verbose=0)
    table = keras.ops.convert_to_numpy(distiller.teacher.get_layer("tokens").embeddings)
    for row, pooled in zip(x[:-1], features["tokens"], strict=False):
        expected = table[row[row != 0]].mean(axis=0)
        np.testing.assert_allclose(pooled, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(features["tokens (mask)"], [True] * 5 + [False])

    def value(**of_teacher):
        pair = pairs.split({"student": ops.convert_to_tensor(x), **of_teacher})
        forward = distiller.run_models(pair)
        (loss,) = loss_values(
            distiller.loss_terms,
            forward.teacher,
            forward.student,
            teacher_step_masks=forward.teacher_step_masks,
            student_step_masks=forward.student_step_masks,
        )
        return float(ops.convert_to_numpy(loss))

    live = value(teacher=ops.convert_to_tensor(x))
    features = keras.tree.map_structure(ops.convert_to_tensor, features)
    assert value(teacher_features=features) == pytest.approx(live, **CLOSE)


# Weights, samples without a teacher, and losses of users, without compiled steps

TEACHER_STEPS = np.arange(STEPS) < np.array([[4], [4], [3], [0], [2], [1]])
STUDENT_STEPS = np.arange(STEPS) < np.array([[4], [2], [3], [4], [1], [1]])
TAUGHT = np.array([1, 0, 1, 1, 1, 1], bool)
WEIGHT = np.array([1.0, 2.0, 0.5, 3.0, 1.0, 0.0], "float32")


def value_of(loss, weight=None, teacher_mask=None, shape=(CLASSES,)):
    """The loss's value on masked features, as the distiller computes it."""
    made = distilling(loss)
    features = [
        reference.samples(N, STEPS, *shape, seed=seed).astype("float32")
        for seed in (0, 1)
    ]
    (value,) = loss_values(
        made.loss_terms,
        {"(output)": ops.convert_to_tensor(features[0])},
        {"(output)": ops.convert_to_tensor(features[1])},
        weight,
        teacher_mask,
        teacher_step_masks={"(output)": ops.convert_to_tensor(TEACHER_STEPS)},
        student_step_masks={"(output)": ops.convert_to_tensor(STUDENT_STEPS)},
    )
    return float(value), features


@pytest.mark.parametrize(
    "loss, formula",
    [
        (losses.SoftTargets(2.0), lambda t, s: reference.soft_targets(t, s, 2.0)),
        (
            keras.distillation.FeatureDistillation(loss="mse"),
            lambda t, s: np.mean((t - s) ** 2),
        ),
    ],
    ids=["soft targets", "of Keras"],
)
def test_masks_and_weights_go_together(loss, formula):
    kept = TEACHER_STEPS & STUDENT_STEPS & TAUGHT[:, None]
    for weight in (WEIGHT, np.abs(reference.samples(N, STEPS, seed=2))):
        actual, (teacher, student) = value_of(
            loss, weight.astype("float32"), ops.convert_to_tensor(TAUGHT)
        )
        weight = np.broadcast_to(weight.reshape(N, -1), kept.shape)
        each = [formula(t, s) for t, s in zip(teacher[kept], student[kept])]  # noqa: B905
        # As Keras's losses: the mean over real steps, not over their weights.
        assert actual == pytest.approx(np.mean(weight[kept] * each), **CLOSE)


def squared_error(y_true, y_pred):
    """A loss for any task."""
    return ops.mean(ops.square(y_true - y_pred), axis=-1)


def test_weights_of_steps_reach_the_losses_as_they_were_given():
    """On torch, Keras's loss multiplies the weights by the mask in place."""
    made = keras_dskd.Distiller(embedding(4), embedding(4), losses.SoftTargets(2.0))
    made.compile(keras.optimizers.SGD(0.0), squared_error, run_eagerly=True)
    weight = np.abs(reference.samples(N, STEPS, seed=2)).astype("float32")
    given = weight.copy()
    y = np.zeros((N, STEPS, CLASSES), "float32")
    logs = made.train_on_batch(RAGGED, y, given, return_dict=True)
    teacher, student = (
        model.predict(RAGGED, verbose=0)[RAGGED != 0]
        for model in (made.teacher, made.student)
    )
    weight = weight[RAGGED != 0]
    each = [
        reference.soft_targets(t[None], s[None], 2.0)
        for t, s in zip(teacher, student, strict=True)
    ]
    assert logs["soft_targets"] == pytest.approx(np.mean(weight * each), **CLOSE)
    own = np.mean(weight * np.mean(student**2, axis=-1))
    assert logs["student_loss"] == pytest.approx(own, **CLOSE)


def test_pooled_samples_need_a_teacher_and_a_real_step_on_both_sides():
    actual, features = value_of(
        losses.ContrastiveDistillation(), WEIGHT, ops.convert_to_tensor(TAUGHT)
    )
    kept = TAUGHT & TEACHER_STEPS.any(axis=1)
    rows = [
        np.stack([x[i, mask[i]].mean(axis=0) for i in np.flatnonzero(kept)])
        for x, mask in zip(features, (TEACHER_STEPS, STUDENT_STEPS), strict=True)
    ]
    u_teacher, u_student = map(reference.normalize, rows)
    logs = reference.log_softmax(u_student @ u_teacher.T / 0.2)
    expected = np.mean(WEIGHT[kept] * -np.diagonal(logs))
    assert actual == pytest.approx(expected, **CLOSE)


class TakesMasks(keras.distillation.DistillationLoss):
    """Counts the real steps of both sides."""

    def compute_loss(
        self,
        teacher_outputs,
        student_outputs,
        teacher_step_mask=None,
        student_step_mask=None,
    ):
        masks = teacher_step_mask, student_step_mask
        teacher, student = (ops.sum(ops.cast(mask, "float32")) for mask in masks)
        return teacher + 100.0 * student


class TakesNone(keras.distillation.DistillationLoss):
    def compute_loss(self, teacher_outputs, student_outputs):
        return ops.mean(ops.square(teacher_outputs - student_outputs))


def test_a_loss_of_a_user_gets_each_sides_mask():
    actual, _ = value_of(TakesMasks())
    assert actual == TEACHER_STEPS.sum() + 100.0 * STUDENT_STEPS.sum()


def test_a_loss_without_masks_warns():
    with pytest.warns(UserWarning, match="TakesNone reads a layer with a Keras mask"):
        value_of(TakesNone())
