"""Checks of the arguments of a distiller."""

from collections.abc import Sequence

import keras

from keras_dskd.distiller.loss_term import LossTerm, names_read
from keras_dskd.features.taps import OUTPUT
from keras_dskd.internal.members import members_of


def check_models(teacher: keras.Model, student: keras.Model) -> None:
    """Raises `ValueError` unless both are Keras models, and different ones."""
    for role, model in (("teacher", teacher), ("student", student)):
        if not isinstance(model, keras.Model):
            raise ValueError(
                f"`{role}` must be a keras.Model. Received: {model!r} of type "
                f"{type(model).__name__}"
            )
    if any(member is student for member in members_of(teacher).values()):
        raise ValueError(
            f"The student {student.name!r} is also one of the teachers. To distill a "
            "model from itself, copy it: keras.models.clone_model, then set_weights."
        )
    if hasattr(student, "distillation_losses"):
        raise ValueError(
            f"The student {student.name!r} is a distiller itself. Pass its student: "
            "`distiller.student`."
        )
    if teacher is student:
        raise ValueError(
            f"Teacher and student are the same object, {teacher.name!r}. To distill a "
            "model from itself, copy it: keras.models.clone_model, then set_weights."
        )


def check_named_teachers(terms: Sequence[LossTerm], teacher: keras.Model) -> None:
    """Raises `ValueError` if a loss does not say which of several teachers it reads."""
    names = list(members_of(teacher))
    for term in terms:
        if names and term.teacher_name == OUTPUT:
            raise ValueError(
                f"{type(term.loss).__name__} reads the final output, and there are "
                f"several teachers: {names}. Name one, or one of its layers: "
                f'teacher_layer_name="{names[0]}" or "{names[0]}/layer".'
            )


def check_projectors(
    projectors: dict[str, keras.layers.Layer] | None,
    terms: Sequence[LossTerm],
) -> dict[str, keras.layers.Layer]:
    """The projectors as a dict.

    Raises:
        ValueError: If a projector is not a layer, or no loss reads its student layer.
    """
    read = names_read(terms, "student")
    if projectors is not None and not isinstance(projectors, dict):
        raise ValueError(
            "`projectors` must map student layer names to keras.layers.Layer. "
            f"Received: {projectors!r} of type {type(projectors).__name__}"
        )
    for layer_name, projector in (projectors or {}).items():
        if layer_name not in read or layer_name == OUTPUT:
            raise ValueError(
                f"No loss reads the student's layer {layer_name!r}, which has a "
                "projector. The losses read: "
                f"{[name for name in read if name != OUTPUT]}"
            )
        if not isinstance(projector, keras.layers.Layer):
            raise ValueError(
                "A projector must be a keras.layers.Layer. Received for "
                f"{layer_name!r}: {projector!r} of type {type(projector).__name__}"
            )
    return dict(projectors or {})


def check_losses(
    losses: keras.distillation.DistillationLoss
    | Sequence[keras.distillation.DistillationLoss]
    | None,
) -> list[keras.distillation.DistillationLoss]:
    """The losses as a list.

    Raises:
        ValueError: If the list is empty, or an item is not a `DistillationLoss`.
    """
    if losses is None:
        losses = []
    if not isinstance(losses, (list, tuple)):
        losses = [losses]
    if not losses:
        raise ValueError(
            "`distillation_losses` must hold at least one loss, for instance "
            "`keras_dskd.losses.SoftTargets()`. Received none."
        )
    for loss in losses:
        if not isinstance(loss, keras.distillation.DistillationLoss):
            raise ValueError(
                "A distillation loss must be an instance of "
                "`keras.distillation.DistillationLoss`, for instance "
                f"`keras_dskd.losses.SoftTargets()`. Received: {loss!r} of type "
                f"{type(loss).__name__}"
            )
    return list(losses)


def check_compatible(
    loss: keras.distillation.DistillationLoss,
    teacher: keras.Model,
    student: keras.Model,
) -> None:
    """Lets a loss check the models, as Keras's distiller does.

    The check of `FeatureDistillation` is skipped: it refuses subclassed and nested
    models, whose layers can be tapped here.
    """
    check = type(loss).validate_model_compatibility
    if check is not keras.distillation.FeatureDistillation.validate_model_compatibility:
        loss.validate_model_compatibility(teacher, student)


def distinct_layers(terms: Sequence[LossTerm]) -> list[keras.layers.Layer]:
    """The layers inside losses, each once."""
    return list({id(layer): layer for term in terms for layer in term.layers}.values())
