"""A step does no unnecessary work: counted, not timed."""

import keras
import numpy as np
import pytest
from small_models import cnn, crossentropy, images, labels, mlp, rows

import keras_dskd
from keras_dskd.features.feature_model import FeatureModel

DSKD = (
    keras_dskd.losses.SoftTargets(),
    keras_dskd.losses.ChannelIndependence("gap", "gap"),
    keras_dskd.losses.SpatialUniformity("relu0"),
)


def distiller(teacher, student, losses=DSKD, cls=keras_dskd.Distiller, **kwargs):
    made = cls(teacher, student, list(losses))
    made.compile(keras.optimizers.SGD(0.1), crossentropy(), **kwargs)
    return made


def ids(variables):
    return {id(variable) for variable in variables}


def test_the_teacher_runs_before_the_students_activations_are_stored(monkeypatch):
    teacher, student = cnn(3, name="teacher"), cnn(1)
    order = []
    for model in (teacher, student):
        call = model.call
        monkeypatch.setattr(
            model,
            "call",
            lambda *args, call=call, name=model.name, **kwargs: (
                order.append(name) or call(*args, **kwargs)
            ),
        )
    made = distiller(teacher, student)

    made.fit(
        {"teacher": images(8, 3), "student": images(8)},
        labels(8),
        batch_size=4,
        verbose=0,
    )

    # Compiled steps call the models once; shape inference may call them before.
    assert order[-2:] == ["teacher", "student"]


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the others build it before"
)
def test_tensorflow_traces_a_step_once_as_optimizer_and_metrics_are_built_before():
    traces = []

    class Traced(keras_dskd.Distiller):
        def compute_loss(self, *args, **kwargs):
            traces.append(len(self.optimizer.variables))
            return super().compute_loss(*args, **kwargs)

    made = distiller(cnn(3, name="teacher"), cnn(1), cls=Traced)
    made.compile("adam", crossentropy(), metrics=["accuracy"])
    frozen = made.student.get_layer("conv0")
    frozen.trainable = False

    def unfreeze(logs=None):
        frozen.trainable = True

    made.fit(
        {"teacher": images(8, 3), "student": images(8)},
        labels(8),
        batch_size=4,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_train_begin=unfreeze)],
    )

    # Iterations, learning rate, and two moments of each variable that trains now.
    assert traces == [2 + 2 * len(made.trainable_variables)]
    assert any(frozen.kernel is variable for variable in made.trainable_variables)


@pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="the others keep what is needed alone"
)
def test_torch_saves_nothing_of_the_teacher_for_the_backward_pass():
    import torch

    # The width identifies a tensor: 7 for the teacher, 3 for the student.
    made = distiller(
        cnn(3, widths=(7,), name="teacher"), cnn(1, widths=(3,)), DSKD[::2]
    )
    kept = []

    def keep(tensor):
        kept.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        made.train_on_batch({"teacher": images(4, 3), "student": images(4)}, labels(4))

    assert any(3 in shape for shape in kept)
    assert not [shape for shape in kept if 7 in shape]


def test_a_teacher_inside_a_layer_of_a_subclass_is_not_trained():
    class Watching(keras_dskd.Distiller):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.watched = FeatureModel(self.teacher, ["hidden"])
            self.extra = keras.layers.Dense(2)
            self.extra.build((None, 3))
            self.factor = self.add_weight(shape=(), name="factor")

    made = distiller(
        mlp(4, name="teacher"), mlp(4), [keras_dskd.losses.SoftTargets()], Watching
    )

    expected = ids([*made.student.weights, *made.extra.weights, made.factor])
    assert ids(made.trainable_weights) == ids(made.trainable_variables) == expected


class Reused(keras.distillation.DistillationLoss):
    """Classifies the student's feature with the teacher's last layer."""

    student_layer_name = "hidden"
    teacher_layer_name = None

    def __init__(self, head):
        self.head = head

    def validate_outputs(self, teacher_outputs, student_outputs):
        pass

    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        gap = self.head(student_outputs) - teacher_outputs
        return keras.ops.mean(keras.ops.square(gap))


@pytest.mark.parametrize("held_by", ["loss", "projector", "the whole teacher"])
def test_a_layer_of_the_teacher_in_a_loss_or_projector_is_not_trained(held_by):
    teacher, student = mlp(4, name="teacher"), mlp(4)
    head = teacher.get_layer("logits")
    if held_by == "projector":
        width = student.get_layer("hidden").units
        projectors = {"hidden": keras.Sequential([keras.layers.Dense(width), head])}
        loss = keras_dskd.losses.FitNet(None, "hidden")
    else:
        projectors, loss = None, Reused(head)
        loss.teacher = teacher if held_by == "the whole teacher" else None
    made = keras_dskd.Distiller(teacher, student, loss, projectors=projectors)
    made.compile(keras.optimizers.AdamW(0.1, weight_decay=0.1), crossentropy())
    before = [*teacher.get_weights(), *student.get_weights()]

    made.fit({"teacher": rows(8), "student": rows(8)}, labels(8), verbose=0)

    count = len(teacher.weights)
    for one, other in zip(before[:count], teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(before[count], student.get_weights()[0])
    assert ids(teacher.weights).isdisjoint(ids(made.trainable_weights))


def test_losses_that_read_only_the_student_need_no_teacher():
    teacher, student = cnn(3, name="teacher"), cnn(1)
    made = distiller(
        teacher,
        student,
        [
            keras_dskd.losses.ChannelIndependence("gap", "gap", target="self"),
            keras_dskd.losses.SpatialUniformity("relu0"),
        ],
    )

    history = made.fit({"student": images(8)}, labels(8), verbose=0).history

    assert history["spatial_uniformity"][0] < 0
    with pytest.raises(ValueError, match="No loss reads the teacher.*SpatialUniform"):
        made.cache_teacher(images(8, 3))


def test_layers_that_losses_read_only_in_the_student_are_not_cached():
    made = distiller(
        cnn(3, name="teacher"),
        cnn(1, widths=(6,)),
        [
            keras_dskd.losses.ChannelAlignment("gap", "gap"),
            keras_dskd.losses.SpatialUniformity("relu0"),
        ],
    )
    assert list(made.cache_teacher(images(8, 3), verbose=0)) == ["gap"]


def test_a_layer_frozen_between_steps_is_frozen():
    student = mlp(4)
    made = distiller(mlp(4, name="teacher"), student, [keras_dskd.losses.SoftTargets()])

    student.get_layer("hidden").trainable = False

    assert ids(made.trainable_weights) == ids(student.get_layer("logits").weights)


def test_means_over_uneven_batches_count_samples():
    made = distiller(mlp(4, name="teacher"), mlp(4), [keras_dskd.losses.SoftTargets()])
    made.optimizer.learning_rate = 0.0
    x, y = {"teacher": rows(7), "student": rows(7, seed=1)}, labels(7)

    whole = made.fit(x, y, batch_size=7, verbose=0).history
    parts = made.fit(x, y, batch_size=3, verbose=0).history

    for name in ("soft_targets", "student_loss", "distillation_loss", "total_loss"):
        assert parts[name] == pytest.approx(whole[name], rel=1e-5)


def test_a_half_switched_off_in_between_has_no_mean_of_zero():
    made = distiller(mlp(4, name="teacher"), mlp(4), [keras_dskd.losses.SoftTargets()])
    x, y = {"teacher": rows(8), "student": rows(8, seed=1)}, labels(8)

    both = made.fit(x, y, verbose=0).history
    made.student_loss_weight = 1.0
    alone = made.fit(x, y, verbose=0).history
    made.student_loss_weight = 0.5
    again = made.fit(x, y, verbose=0).history

    assert set(both) == set(again) > set(alone)
    assert "soft_targets" not in alone


def test_a_loss_in_a_branch_of_a_graph_shares_nothing_with_other_losses():
    class WhileItIsOn(keras.distillation.DistillationLoss):
        teacher_layer_name = student_layer_name = "hidden"
        name = "on"
        inner = keras_dskd.losses.FitNet()

        def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
            return keras.ops.cond(
                keras.ops.sum(student_outputs) > -1e9,
                lambda: self.inner.compute_loss(teacher_outputs, student_outputs),
                lambda: keras.ops.zeros(()),
            )

    made = keras_dskd.Distiller(
        mlp(4, name="teacher"),
        mlp(4),
        [WhileItIsOn(), keras_dskd.losses.FitNet("hidden", "hidden")],
    )
    made.compile("sgd", crossentropy())

    history = made.fit(rows(8), labels(8), verbose=0).history

    assert history["on"] == pytest.approx(history["fitnet"])
