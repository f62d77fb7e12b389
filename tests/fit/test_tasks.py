"""Recipes and output losses fit the task that the student is trained for."""

import keras
import numpy as np
import pytest
import reference
from keras import layers

import keras_dskd
from keras_dskd import losses
from keras_dskd.internal.tasks import task_of

X = reference.samples(8, 8, 8, 1).astype("float32")
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def net(name="student", outputs=3, activation=None, heads=None):
    """A convolutional network; `heads` maps the names of several outputs to widths."""
    x = inputs = keras.Input((8, 8, 1))
    for number in range(3):
        x = layers.Conv2D(4, 3, padding="same", name=f"block{number}")(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Flatten()(x)
    if heads:
        made = {key: layers.Dense(width, name=f"{key}_head")(x) for key, width in heads}
        return keras.Model(inputs, made, name=name)
    return keras.Model(inputs, layers.Dense(outputs, activation)(x), name=name)


def pair(**kwargs):
    return net("teacher", **kwargs), net("student", **kwargs)


def trained(distiller, loss, y, **kwargs):
    distiller.compile("adam", loss)
    return distiller.fit(X, y, batch_size=8, verbose=0, **kwargs).history


TASKS = {
    "classes": (3, CROSS_ENTROPY, np.arange(8) % 3, "soft_targets"),
    "one sigmoid": (
        1,
        keras.losses.BinaryCrossentropy(from_logits=True),
        np.arange(8) % 2,
        "binary_soft_targets",
    ),
    "labels": (
        4,
        keras.losses.BinaryFocalCrossentropy(from_logits=True),
        np.ones((8, 4)),
        "binary_soft_targets",
    ),
    "a number": (1, "mse", np.ones(8), "regression_targets"),
    "numbers": (4, keras.losses.Huber(), np.ones((8, 4)), "regression_targets"),
}


@pytest.mark.parametrize("recipe", [keras_dskd.dskd, keras_dskd.recommended])
@pytest.mark.parametrize("outputs, loss, y, metric", TASKS.values(), ids=TASKS)
def test_the_compiled_loss_decides_the_output_loss(recipe, outputs, loss, y, metric):
    distiller = recipe(*pair(outputs=outputs))
    history = trained(distiller, loss, y)
    assert np.isfinite(history[metric]).all()
    assert distiller.loss_terms[0].name == metric
    assert metric == distiller.distillation_losses[0].name


def test_the_output_loss_has_the_value_of_its_formula():
    teacher, student = pair(outputs=4)
    outputs = [model.predict(X, verbose=0) for model in (teacher, student)]
    history = trained(keras_dskd.recommended(teacher, student), "mse", np.ones((8, 4)))
    expected = reference.regression_targets(*outputs)
    np.testing.assert_allclose(history["regression_targets"][0], expected, rtol=1e-4)


@pytest.mark.parametrize("activation, name", [("softmax", "soft"), ("sigmoid", "bina")])
def test_activations_decide_before_compile(activation, name):
    distiller = keras_dskd.recommended(*pair(activation=activation))
    loss = distiller.distillation_losses[0]
    assert loss.name.startswith(name)
    assert not (loss.teacher_from_logits or loss.student_from_logits)


def test_a_given_task_decides_before_compile():
    distiller = keras_dskd.recommended(*pair(), task="regression")
    assert isinstance(distiller.distillation_losses[0], losses.RegressionTargets)


def test_a_temperature_assigned_before_compile_stays():
    distiller = keras_dskd.recommended(*pair(outputs=3))
    distiller.distillation_losses[0].temperature = 1.5
    distiller.compile("sgd", CROSS_ENTROPY)
    assert isinstance(distiller.distillation_losses[0], losses.SoftTargets)
    assert distiller.distillation_losses[0].temperature == 1.5
    distiller = keras_dskd.recommended(*pair(outputs=1))
    distiller.distillation_losses[0].temperature = 1.5
    with pytest.raises(ValueError, match="no temperature. Received: temperature=1.5"):
        distiller.compile("sgd", "mse")


@pytest.mark.parametrize("recipe", [keras_dskd.dskd, keras_dskd.recommended])
def test_a_recipe_passes_its_temperature_to_the_loss_of_the_outputs(recipe):
    decided = recipe(*pair(activation="sigmoid"), temperature=1.5)
    assert decided.distillation_losses[0].temperature == 1.5
    by_compile = recipe(*pair(outputs=3), temperature=1.5)
    by_compile.compile("sgd", CROSS_ENTROPY)
    assert isinstance(by_compile.distillation_losses[0], losses.SoftTargets)
    assert by_compile.distillation_losses[0].temperature == 1.5


def test_a_temperature_for_a_regression_raises():
    message = "no temperature. Received: temperature=1.5"
    with pytest.raises(ValueError, match=message):
        keras_dskd.recommended(*pair(), task="regression", temperature=1.5)
    distiller = keras_dskd.recommended(*pair(outputs=1), temperature=1.5)
    with pytest.raises(ValueError, match=message):
        distiller.compile("sgd", "mse")


def test_contradictions_between_models_and_task_raise():
    with pytest.raises(ValueError, match="teacher'.* softmax, and .* in a sigmoid"):
        keras_dskd.recommended(
            net("teacher", activation="softmax"), net(activation="sigmoid")
        )
    with pytest.raises(ValueError, match="task='binary', and the teacher .* softmax"):
        keras_dskd.dskd(*pair(activation="softmax"), task="binary")
    with pytest.raises(ValueError, match="`task` must be one of .*'labels'"):
        keras_dskd.dskd(*pair(), task="labels")


def test_a_loss_for_any_task_needs_a_task():
    distiller = keras_dskd.recommended(*pair())
    with pytest.raises(ValueError, match="cosine_similarity may be for any.*task=..."):
        distiller.compile("sgd", "cosine_similarity")
    with pytest.raises(ValueError, match="Compile the distiller, or pass task="):
        distiller.distillation_losses[0].compute_loss(X, X)
    distiller = keras_dskd.recommended(*pair(), task="multiclass")
    distiller.compile("sgd", "cosine_similarity")


def test_two_heads_of_different_kinds_get_a_loss_each():
    heads = [("kind", 3), ("size", 1)]
    # The teacher returns them in the other order.
    models = net("teacher", heads=heads[::-1]), net(heads=heads)
    distiller = keras_dskd.recommended(*models)
    y = {"kind": np.arange(8) % 3, "size": np.ones(8)}
    outputs = [model.predict(X, verbose=0) for model in models]
    history = trained(distiller, {"kind": CROSS_ENTROPY, "size": "mse"}, y)

    def soft_targets(teacher, student):
        temperature = reference.auto_temperature(teacher)
        return reference.soft_targets(teacher, student, temperature)

    for name, key, formula in (
        ("soft_targets", "kind", soft_targets),
        ("regression_targets", "size", reference.regression_targets),
    ):
        expected = formula(*(output[key] for output in outputs))
        np.testing.assert_allclose(history[name][0], expected, rtol=1e-4)


def test_different_numbers_of_heads_raise():
    heads = [("kind", 3), ("size", 1)]
    with pytest.raises(ValueError, match="'teacher' has 1 outputs and .* has 2"):
        keras_dskd.recommended(net("teacher"), net(heads=heads))


def test_a_decided_recipe_can_be_saved(tmp_path):
    distiller = keras_dskd.recommended(*pair(outputs=1))
    trained(distiller, "mse", np.ones(8))
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    assert isinstance(loaded.distillation_losses[0], losses.RegressionTargets)
    assert "regression_targets" in loaded.evaluate(X, np.ones(8), return_dict=True) or (
        np.isfinite(trained(loaded, "mse", np.ones(8))["regression_targets"][0])
    )


CONTRADICTIONS = [
    (losses.SoftTargets(), "binary_crossentropy", "BinarySoftTargets"),
    (losses.DecoupledDistillation(), "mse", "RegressionTargets"),
    (losses.HardTargets(), keras.losses.BinaryCrossentropy(), "BinarySoftTargets"),
    (losses.BinarySoftTargets(), CROSS_ENTROPY, "SoftTargets"),
    (losses.BinarySoftTargets(), keras.losses.mean_squared_error, "RegressionTargets"),
]


@pytest.mark.parametrize("loss, compiled, advice", CONTRADICTIONS)
def test_a_loss_for_another_task_raises(loss, compiled, advice):
    distiller = keras_dskd.Distiller(*pair(), loss)
    with pytest.raises(ValueError, match=f"Use keras_dskd.losses.{advice}"):
        distiller.compile("sgd", compiled)


MISTAKEN_LOGITS = [
    (None, "sparse_categorical_crossentropy", "is logits.*from_logits=True"),
    (None, keras.losses.binary_crossentropy, "is logits.*from_logits=True"),
    (None, keras.losses.CategoricalCrossentropy(), "is logits.*from_logits=True"),
    ("softmax", CROSS_ENTROPY, "of a softmax.*from_logits=False"),
    (
        "sigmoid",
        keras.losses.BinaryCrossentropy(from_logits=True),
        "of a sigmoid.*from_logits=False",
    ),
]


@pytest.mark.parametrize("activation, compiled, message", MISTAKEN_LOGITS)
def test_a_loss_that_mistakes_logits_for_probabilities_warns(
    activation, compiled, message
):
    distiller = keras_dskd.recommended(*pair(activation=activation))
    with pytest.warns(UserWarning, match=message):
        distiller.compile("sgd", compiled)


@pytest.mark.parametrize(
    "activation, compiled",
    [
        ("softmax", "sparse_categorical_crossentropy"),
        ("sigmoid", keras.losses.BinaryCrossentropy()),
        (None, CROSS_ENTROPY),
        ("softmax", "mse"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_loss_that_fits_the_outputs_does_not_warn(activation, compiled):
    task = {"softmax": "multiclass", "sigmoid": "binary"}.get(activation)
    models = pair(activation=activation)
    if compiled == "mse":
        outputs = losses.SoftTargets(
            teacher_from_logits=False, student_from_logits=False
        )
        distiller = keras_dskd.Distiller(*models, outputs)
    else:
        distiller = keras_dskd.recommended(*models, task=task)
    distiller.compile("sgd", compiled)


def test_a_contradiction_in_one_of_several_heads_raises():
    heads = [("kind", 3), ("size", 1)]
    models = net("teacher", heads=heads), net(heads=heads)
    loss = losses.SoftTargets(
        teacher_layer_name="kind_head", student_layer_name="kind_head"
    )
    distiller = keras_dskd.Distiller(*models, loss)
    distiller.compile("sgd", {"kind": CROSS_ENTROPY, "size": "mse"})
    with pytest.raises(ValueError, match="SoftTargets is for multiclass outputs"):
        distiller.compile("sgd", {"kind": "mse", "size": "mse"})


def test_losses_that_do_not_contradict_are_accepted():
    # Squared differences of logits; probabilities that a squared error trains.
    keras_dskd.Distiller(*pair(), losses.RegressionTargets()).compile(
        "sgd", CROSS_ENTROPY
    )
    probabilities = losses.SoftTargets(
        teacher_from_logits=False, student_from_logits=False
    )
    distiller = keras_dskd.Distiller(*pair(activation="softmax"), probabilities)
    distiller.compile("sgd", "mse")
    # A loss of features has no task.
    features = losses.BinarySoftTargets(
        teacher_layer_name="block1", student_layer_name="block1"
    )
    keras_dskd.Distiller(*pair(), features).compile("sgd", CROSS_ENTROPY)


@pytest.mark.backend_neutral
def test_keras_losses_tell_their_task():
    for task, given in {
        "multiclass": ["sparse_categorical_crossentropy", keras.losses.kl_divergence],
        "binary": [
            "binary_crossentropy",
            "bce",
            keras.losses.BinaryFocalCrossentropy(),
        ],
        "regression": ["mse", "mae", "huber", keras.losses.LogCosh()],
        None: [lambda y, p: p, keras.losses.Dice(), None, "hinge"],
    }.items():
        assert [task_of(loss) for loss in given] == [task] * len(given)
