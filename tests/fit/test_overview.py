"""A distiller's `repr` and `summary`."""

import inspect

import keras
import pytest
from small_models import Subclassed, crossentropy, labels, mlp, rows

import keras_dskd
from keras_dskd.losses import ChannelAlignment, SoftTargets, SpatialUniformity

X = {"teacher": rows(16, 4), "student": rows(16, 3)}
Y = labels()


def distiller(teacher=None, student=None, **kwargs):
    return keras_dskd.Distiller(
        teacher or mlp(4, 6, "teacher"),
        student or mlp(3, 5),
        [
            SoftTargets(),
            ChannelAlignment("hidden", "hidden"),
            SpatialUniformity("logits"),
        ],
        **{
            "distillation_loss_weights": [1.0, 0.25, rising],
            "projectors": {"hidden": keras.layers.Dense(6, name="wider")},
            **kwargs,
        },
    )


def rising(step):
    return 0.1 * keras.ops.cast(step, "float32")


def summarized(made, line_length=200, **kwargs):
    """The cells of the tables, row by row, and all printed lines."""
    texts = []
    made.summary(print_fn=texts.append, line_length=line_length, **kwargs)
    lines = "\n".join(texts).split("\n")
    cells = [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in lines
        if line.startswith("│")
    ]
    return cells, lines


def fit(made, **kwargs):
    made.compile("sgd", crossentropy())
    kwargs = {"x": X, "y": Y, "batch_size": 4, "verbose": 0, **kwargs}
    return made.fit(**kwargs)


@pytest.mark.backend_neutral
def test_repr_shows_what_is_minimized():
    assert repr(distiller(student_loss_weight=0.3)) == (
        "<Distiller name=distiller, teacher=teacher, student=student, "
        "total=0.3 student_loss + 0.7 (1 soft_targets + 0.25 channel_alignment "
        "+ rising spatial_uniformity)>"
    )
    assert str(distiller()) == repr(distiller())


@pytest.mark.backend_neutral
def test_repr_of_a_distiller_whose_construction_failed_does_not_raise():
    class Kept(keras_dskd.Distiller):
        def __init__(self, *args, **kwargs):
            made.append(self)
            super().__init__(*args, **kwargs)

    made = []
    with pytest.raises(ValueError, match="No loss reads"):
        Kept(mlp(4), mlp(3), SoftTargets(), projectors={"x": keras.layers.Dense(2)})
    assert "Kept" in repr(made[0])


@pytest.mark.backend_neutral
def test_summary_lists_models_projectors_and_losses():
    cells, lines = summarized(distiller())
    assert lines[0] == 'Distiller: "distiller"'
    assert cells == [
        ["teacher", "teacher (Functional)", "51", "0"],  # 4·6 + 6 + 6·3 + 3
        ["student", "student (Functional)", "38", "38"],  # 3·5 + 5 + 5·3 + 3
        ["projector of hidden", "wider (Dense)", "36", "36"],  # 5·6 + 6
        ["soft_targets", "(output)", "(output)", "1"],
        ["channel_alignment", "hidden", "hidden → wider", "0.25"],
        ["spatial_uniformity", "not read", "logits", "rising, now 0"],
    ]
    assert lines[-2] == " total = 0.5 student_loss + 0.5 Σ weight · loss, at step 0"


@pytest.mark.backend_neutral
def test_summary_has_the_arguments_of_keras():
    expected = inspect.signature(keras.Model.summary).parameters
    received = inspect.signature(keras_dskd.Distiller.summary).parameters
    assert [(name, p.default) for name, p in received.items()] == [
        (name, p.default) for name, p in expected.items()
    ]


@pytest.mark.backend_neutral
def test_summary_is_printed_by_default(capsys):
    distiller().summary()
    assert "channel_alignment" in capsys.readouterr().out


def test_summary_shows_assigned_weights_and_the_schedules_current_value():
    made = distiller()
    made.distillation_loss_weights[0] = 3.0
    made.student_loss_weight = 0.75
    fit(made)
    cells, lines = summarized(made)
    assert [row[-1] for row in cells[3:]] == ["3", "0.25", "rising, now 0.4"]
    assert "total = 0.75 student_loss + 0.25 Σ weight · loss, at step 4" in lines[-2]
    assert "0.75 student_loss + 0.25 (3 soft_targets" in repr(made)


def test_summary_within_an_epoch_shows_the_current_batch():
    seen = []
    callback = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(summarized(made)[0][-1][-1])
    )
    made = distiller()
    fit(made, callbacks=[callback])
    assert seen == [f"rising, now 0.{step}" for step in (1, 2, 3, 4)]


def test_summary_before_and_after_building():
    made = distiller(Subclassed(6, name="teacher"), Subclassed(name="student"))
    assert [row[2:] for row in summarized(made)[0][:3]] == [["not built", ""]] * 3
    made.teacher(X["teacher"])
    fit(made)
    counts = [row[2:] for row in summarized(made)[0][:3]]
    assert counts == [["51", "0"], ["38", "38"], ["36", "36"]]


def test_summary_counts_trainable_parameters():
    made = distiller()
    made.student.get_layer("hidden").trainable = False
    assert [row[-1] for row in summarized(made)[0][:3]] == ["0", "18", "36"]
    made.trainable = False
    assert [row[-1] for row in summarized(made)[0][:3]] == ["0", "0", "0"]


@pytest.mark.backend_neutral
def test_summary_lists_layers_inside_losses():
    class Learned(keras.distillation.DistillationLoss):
        def __init__(self):
            self.scale = keras.layers.Dense(3, use_bias=False, name="scale")

        def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
            return keras.ops.mean((teacher_outputs - self.scale(student_outputs)) ** 2)

    made = keras_dskd.Distiller(mlp(4, name="teacher"), mlp(3), Learned())
    cells, _ = summarized(made)
    assert cells[2] == ["in learned", "scale (Dense)", "9", "9"]
    assert cells[3] == ["learned", "(output)", "(output)", "1"]


def test_summary_of_a_distiller_trained_on_cached_features():
    made = distiller()
    features = made.cache_teacher(X["teacher"], verbose=0)
    fit(made, x={"student": X["student"], "teacher_features": features})
    assert "at step 4" in summarized(made)[1][-2]


def test_summary_after_loading(tmp_path):
    made = distiller(distillation_loss_weights=[1.0, 0.25, 2.0])
    fit(made)
    expected = summarized(made)
    made.save(tmp_path / "d.keras", include_teacher=False)
    loaded = keras_dskd.Distiller.load(tmp_path / "d.keras", teacher=made.teacher)
    assert summarized(loaded) == expected
    assert repr(loaded) == repr(made)


@pytest.mark.backend_neutral
def test_narrow_summary_truncates_nothing():
    cells, lines = summarized(distiller(), line_length=40)
    assert max(map(len, lines)) <= 40
    letters = "".join(row[0] for row in cells)
    assert letters.endswith("soft_targetschannel_alignmentspatial_uniformity")


@pytest.mark.backend_neutral
@pytest.mark.parametrize("argument", ["expand_nested", "show_trainable"])
def test_arguments_about_layers_add_the_summaries_of_keras(argument):
    _, lines = summarized(distiller(), line_length=80, **{argument: True})
    at = [lines.index(f'Model: "{name}"') for name in ("teacher", "student")]
    assert at == sorted(at)
    columns = [line.count("┃") - 1 for line in lines if line.startswith("┃ Layer")]
    assert columns == ([4, 4] if argument == "show_trainable" else [3, 3])


@pytest.mark.backend_neutral
def test_summary_of_a_range_of_the_students_layers():
    _, lines = summarized(distiller(), layer_range=("logits", "logits"))
    assert 'Model: "teacher"' not in lines
    of_student = "\n".join(lines[lines.index('Model: "student"') :])
    assert "logits (Dense)" in of_student
    assert "hidden (Dense)" not in of_student
