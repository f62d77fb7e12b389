"""A step does no more than it must: counted, not timed."""

import keras
import pytest
from small_models import cnn, crossentropy, images, labels, mlp, rows

import keras_dskd
from keras_dskd.model_features import FeatureModel

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


def test_the_teacher_runs_before_the_students_activations_are_kept(monkeypatch):
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

    # Compiled steps run the models once, and shapes may be worked out before.
    assert order[-2:] == ["teacher", "student"]


@pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="the others keep what is needed alone"
)
def test_torch_keeps_nothing_of_the_teacher_for_the_backward_pass():
    import torch

    # Widths that tell whose a tensor is: 7 of the teacher, 3 of the student.
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


def test_a_teacher_inside_of_a_subclasss_layer_is_not_trained():
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


def test_freezing_a_layer_between_steps_freezes_it():
    student = mlp(4)
    made = distiller(mlp(4, name="teacher"), student, [keras_dskd.losses.SoftTargets()])

    student.get_layer("hidden").trainable = False

    assert ids(made.trainable_weights) == ids(student.get_layer("logits").weights)


def test_means_of_uneven_batches_count_samples():
    made = distiller(mlp(4, name="teacher"), mlp(4), [keras_dskd.losses.SoftTargets()])
    made.optimizer.learning_rate = 0.0
    x, y = {"teacher": rows(7), "student": rows(7, seed=1)}, labels(7)

    whole = made.fit(x, y, batch_size=7, verbose=0).history
    parts = made.fit(x, y, batch_size=3, verbose=0).history

    for name in ("soft_targets", "student_loss", "distillation_loss", "total_loss"):
        assert parts[name] == pytest.approx(whole[name], rel=1e-5)


def test_a_half_that_is_switched_off_in_between_has_no_mean_of_zero():
    made = distiller(mlp(4, name="teacher"), mlp(4), [keras_dskd.losses.SoftTargets()])
    x, y = {"teacher": rows(8), "student": rows(8, seed=1)}, labels(8)

    both = made.fit(x, y, verbose=0).history
    made.student_loss_weight = 1.0
    alone = made.fit(x, y, verbose=0).history
    made.student_loss_weight = 0.5
    again = made.fit(x, y, verbose=0).history

    assert set(both) == set(again) > set(alone)
    assert "soft_targets" not in alone
