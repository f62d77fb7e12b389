"""What a distiller is made of, checked."""

from collections.abc import Sequence

import keras

from keras_dskd.distiller import loss_interface
from keras_dskd.features.taps import OUTPUT


def check_models(teacher: keras.Model, student: keras.Model) -> None:
    """Raises `ValueError` unless both are Keras models, and two."""
    for role, model in (("teacher", teacher), ("student", student)):
        if not isinstance(model, keras.Model):
            raise ValueError(
                f"`{role}` must be a keras.Model. Received: {model!r} of type "
                f"{type(model).__name__}"
            )
    if teacher is student:
        raise ValueError(
            f"Teacher and student are the same object, {teacher.name!r}. To distil a "
            "model from itself, copy it: keras.models.clone_model, then set_weights."
        )


def check_projectors(
    projectors: dict[str, keras.layers.Layer] | None,
    losses: Sequence[keras.distillation.DistillationLoss],
) -> dict[str, keras.layers.Layer]:
    """The projectors as a dict.

    Raises:
        ValueError: If one is no layer, or no loss reads the feature it is for.
    """
    read = loss_interface.keys(losses, "student")
    if projectors is not None and not isinstance(projectors, dict):
        raise ValueError(
            "`projectors` is a dict of student layer name -> keras.layers.Layer. "
            f"Received: {projectors!r} of type {type(projectors).__name__}"
        )
    for layer_name, projector in (projectors or {}).items():
        if layer_name not in read or layer_name == OUTPUT:
            raise ValueError(
                f"No loss reads the student's layer of projector {layer_name!r}. The "
                f"losses read: {[name for name in read if name != OUTPUT]}"
            )
        if not isinstance(projector, keras.layers.Layer):
            raise ValueError(
                f"A projector is a keras.layers.Layer. Received for {layer_name!r}: "
                f"{projector!r} of type {type(projector).__name__}"
            )
    return dict(projectors or {})


def check_losses(
    losses: keras.distillation.DistillationLoss
    | Sequence[keras.distillation.DistillationLoss]
    | None,
) -> list[keras.distillation.DistillationLoss]:
    """The losses as a list.

    Raises:
        ValueError: If there are none, or one is no `DistillationLoss`.
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
                "A distillation loss is an instance of "
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

    `FeatureDistillation` is not asked: it refuses subclassed and nested models, whose
    layers can be tapped here.
    """
    check = type(loss).validate_model_compatibility
    if check is not keras.distillation.FeatureDistillation.validate_model_compatibility:
        loss.validate_model_compatibility(teacher, student)
