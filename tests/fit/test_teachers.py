"""Several teachers, stored outputs without a model, and what else may teach."""

import keras
import numpy as np
import pytest
import reference
from keras import ops
from small_models import (
    Subclassed,
    crossentropy,
    labels,
    mlp,
    numbers,
    rows,
    standing_still,
)

import keras_dskd
from keras_dskd.losses import ChannelAlignment, SoftTargets, SpatialUniformity

N = 8
OPTICAL, THERMAL, RADAR = (rows(N, w, seed=w) for w in (6, 5, 4))
Y = labels(N)
BOTH = {"teacher": {"optical": OPTICAL, "thermal": THERMAL}, "student": RADAR}


def optical():
    return mlp(6, name="net", seed=10)


def thermal():
    return mlp(5, hidden=7, name="net", seed=20)


def several(losses=None, teachers=None, **kwargs):
    losses = losses or [
        SoftTargets(teacher_layer_name="optical"),
        ChannelAlignment("thermal/hidden", "hidden"),
    ]
    if not kwargs and teachers is None:
        kwargs["projectors"] = {"hidden": keras.layers.Dense(7, use_bias=False)}
    made = keras_dskd.Distiller(
        teachers or {"thermal": thermal(), "optical": optical()},
        mlp(4),
        losses,
        **kwargs,
    )
    made.compile(standing_still(), crossentropy())
    return made


def fit(made, x, epochs=1):
    return numbers(made.fit(x, Y, batch_size=N, epochs=epochs, verbose=0))


# Several teachers


def test_each_loss_reads_the_teacher_that_it_names():
    made = several()
    features = made(BOTH, training=True)
    np.testing.assert_allclose(
        features.teacher["optical"], ops.convert_to_numpy(optical()(OPTICAL)), rtol=1e-5
    )
    thermal_model = made.teacher.members["thermal"]
    hidden = thermal_model.get_layer("hidden")(THERMAL)
    np.testing.assert_allclose(
        features.teacher["thermal/hidden"], ops.convert_to_numpy(hidden), rtol=1e-5
    )
    kept = made.teacher.get_weights()
    history = fit(made, BOTH)
    expected = reference.soft_targets(
        ops.convert_to_numpy(optical()(OPTICAL)),
        ops.convert_to_numpy(made.student(RADAR)),
        4.0,
    )
    assert history["soft_targets"] == pytest.approx(expected, rel=1e-4)
    for before, after in zip(kept, made.teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_one_input_serves_all_teachers():
    teachers = {"first": optical(), "second": mlp(6, seed=30)}
    losses = [SoftTargets(teacher_layer_name=name) for name in teachers]
    made = several(losses, teachers)
    features = made({"teacher": OPTICAL, "student": RADAR}, training=True).teacher
    for name, model in teachers.items():
        expected = ops.convert_to_numpy(model(OPTICAL))
        np.testing.assert_allclose(features[name], expected, rtol=1e-5)


def test_several_teachers_are_cached_saved_and_loaded(tmp_path):
    made = several()
    given = fit(made, BOTH)
    cached = made.cache_teacher(BOTH["teacher"], tmp_path / "cache", verbose=0)
    assert set(cached) == {"optical", "thermal/hidden"}
    made.save(tmp_path / "with.keras")
    made.save(tmp_path / "without.keras", include_teacher=False)
    loaded = keras.models.load_model(tmp_path / "with.keras")
    replayed = fit(loaded, {"student": RADAR, "teacher_features": cached})
    assert replayed == pytest.approx(given, rel=1e-4)
    teachers = {"optical": optical(), "thermal": thermal()}
    again = keras_dskd.Distiller.load(tmp_path / "without.keras", teacher=teachers)
    assert fit(again, BOTH) == pytest.approx(given, rel=1e-4)
    teachers["optical"] = mlp(6, seed=5)
    with pytest.raises(ValueError, match="their weights differ"):
        keras_dskd.Distiller.load(tmp_path / "without.keras", teacher=teachers)


def test_subclassed_teachers_get_projectors_before_the_first_step():
    teachers = {"a": Subclassed(hidden=7), "b": optical()}
    teachers["a"](OPTICAL)
    losses = [ChannelAlignment("a/hidden", "hidden"), SoftTargets(2.0, "b")]
    projector = keras.layers.Dense(7)
    made = several(losses, teachers, projectors={"hidden": projector})
    x = {"teacher": OPTICAL, "student": RADAR}
    history = fit(made, x, epochs=2)
    assert projector.built and np.isfinite(history["loss"])


def test_a_teacher_among_several_that_was_never_called_is_built():
    wrapped = keras.Sequential([keras.layers.Rescaling(1.0), optical()])
    made = several([SoftTargets(teacher_layer_name="wrapped")], {"wrapped": wrapped})
    assert np.isfinite(fit(made, {"teacher": OPTICAL, "student": RADAR})["loss"])


def test_a_loss_that_names_none_of_several_teachers_raises():
    expected = (
        r"SoftTargets reads the final output.* \['optical', 'thermal'\]. Name one, or "
        r'one of its layers: teacher_layer_name="optical" or "optical/layer"'
    )
    with pytest.raises(ValueError, match=expected):
        several([SoftTargets()])
    several([SpatialUniformity("hidden")])  # It reads no teacher.


def test_layers_of_several_teachers_are_found_as_in_one():
    with pytest.raises(ValueError, match='Did you mean "hidden"'):
        several([ChannelAlignment("optical/hiden", "hidden")])
    with pytest.raises(ValueError, match='"optical/hidden", "thermal/hidden"'):
        several([ChannelAlignment("hidden", "hidden")])
    with pytest.raises(ValueError, match='Did you mean "optical"'):
        several([SoftTargets(teacher_layer_name="optica")], projectors={})


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        ({"optical": OPTICAL}, r"\['optical', 'thermal'\], or .* keys: \['optical'\]"),
        (OPTICAL, "does not fit the teacher 'thermal', 'net'. Expected shape"),
        ({"optical": THERMAL, "thermal": OPTICAL}, "fit the teacher 'optical'"),
    ],
)
def test_input_that_does_not_fit_several_teachers_raises(x, expected):
    with pytest.raises(ValueError, match=expected):
        several()({"teacher": x, "student": RADAR}, training=True)


@pytest.mark.backend_neutral
def test_teachers_that_are_no_models_or_have_no_usable_names_raise():
    student = mlp(4)
    for teachers, expected in [
        ({}, "at least one model"),
        ({"a": keras.layers.Dense(2)}, "must be a keras.Model. Received for 'a'"),
        ({"a/b": optical()}, "a string without any of"),
        ({1: optical()}, "a string without any of .* Received: 1"),
        ({"a": student}, "is also one of the teachers"),
        (dict.fromkeys("ab", optical()), "each model once"),
    ]:
        with pytest.raises(ValueError, match=expected):
            keras_dskd.Distiller(teachers, student, SoftTargets(2.0, "a"))


@pytest.mark.backend_neutral
def test_recipes_take_one_teacher():
    for teacher in ({"a": optical()}, None):
        with pytest.raises(ValueError, match="takes one teacher.*Build a `Distiller`"):
            keras_dskd.recommended(teacher, mlp(4))


@pytest.mark.backend_neutral
def test_teachers_that_share_layers_are_not_saved_together(tmp_path):
    first = optical()
    second = keras.Model(first.inputs, first.get_layer("hidden").output)
    losses = [SoftTargets(2.0, "a"), ChannelAlignment("b", "hidden")]
    made = several(losses, {"a": first, "b": second})
    with pytest.raises(ValueError, match="teachers 'a' and 'b' share a layer"):
        made.save(tmp_path / "made.keras")
    made.save(tmp_path / "made.keras", include_teacher=False)


@pytest.mark.backend_neutral
def test_the_summary_lists_each_teacher(capsys):
    several().summary(line_length=100)
    shown = capsys.readouterr().out
    assert "teacher optical" in shown and "teacher thermal" in shown


# Stored outputs


def stored(losses=None, **kwargs):
    made = keras_dskd.Distiller(None, mlp(4), losses or SoftTargets(2.0), **kwargs)
    made.compile(standing_still(), crossentropy())
    return made


def test_an_array_of_stored_outputs_teaches_as_their_model(tmp_path):
    logits = optical().predict(OPTICAL, verbose=0)
    x = {"student": RADAR, "teacher_features": logits}
    made = stored()
    given = fit(made, x)
    expected = reference.soft_targets(logits, mlp(4).predict(RADAR, verbose=0), 2.0)
    assert given["soft_targets"] == pytest.approx(expected, rel=1e-4)
    for include_teacher in (True, False):
        made.save(tmp_path / "made.keras", include_teacher=include_teacher)
        loaded = keras.models.load_model(tmp_path / "made.keras")
        assert fit(loaded, x) == pytest.approx(given, rel=1e-4)
    made.save_weights(tmp_path / "made.weights.h5")
    stored().load_weights(tmp_path / "made.weights.h5")
    # A distiller with the model takes such an array, too.
    with_model = keras_dskd.Distiller(optical(), mlp(4), SoftTargets(2.0))
    with_model.compile(standing_still(), crossentropy())
    assert fit(with_model, x) == pytest.approx(given, rel=1e-4)
    assert "teacher=stored_outputs" in repr(made)
    made.summary(print_fn=lambda text: None)


def test_stored_features_have_the_names_that_losses_read():
    """They may be projected, and some samples may lack them."""
    features = {"logits": rows(N, 3, seed=3), "block2": rows(N, 9, seed=9)}
    losses = [SoftTargets(2.0, "logits"), ChannelAlignment("block2", "hidden")]
    made = stored(losses, projectors={"hidden": keras.layers.Dense(9)})
    mask = np.arange(N) % 4 > 0
    x = {"student": RADAR, "teacher_features": features, "teacher_mask": mask}
    history = fit(made, x)
    expected = reference.soft_targets(
        features["logits"][mask], mlp(4).predict(RADAR[mask], verbose=0), 2.0
    )
    assert history["soft_targets"] == pytest.approx(expected, rel=1e-4)
    assert 0 < history["channel_alignment"] <= 4
    assert np.isfinite(made.evaluate(RADAR, Y, verbose=0)).all()
    assert made.predict(RADAR, verbose=0).shape == (N, 3)


def test_a_distiller_without_a_teacher_says_what_it_needs():
    made = stored()
    expected = 'Pass its stored outputs: x={"student": ..., "teacher_features": ...}'
    for x in (RADAR, {"student": RADAR}, {"student": RADAR, "teacher": OPTICAL}):
        with pytest.raises(ValueError, match=expected):
            made(x, training=True)
    with pytest.raises(ValueError, match="made without a teacher"):
        made.cache_teacher(OPTICAL)
    named = stored([SoftTargets(2.0, "logits")])
    with pytest.raises(ValueError, match=r"lack \['logits'\]. They hold \['\(output"):
        named({"student": RADAR, "teacher_features": rows(N, 3)}, training=True)
    with pytest.raises(ValueError, match="lack .'logits'.*name stored outputs as"):
        named({"student": RADAR, "teacher_features": {"l": rows(N, 3)}}, training=True)
    with pytest.raises(ValueError, match="holds 5 samples"):
        made({"student": RADAR, "teacher_features": rows(5, 3)}, training=True)
