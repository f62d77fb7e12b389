"""The training forward pass: one run of each model, and its features."""

import inspect
import re
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_dskd.data import pairs
from keras_dskd.distiller.added_losses import StudentLosses, per_replica_losses
from keras_dskd.distiller.loss_term import LossTerm, names_read
from keras_dskd.features.completing import complete
from keras_dskd.features.step_masks import LayerCall, StepMasks, mask_key
from keras_dskd.features.taps import OUTPUT, Tap, capture
from keras_dskd.features.teachers import StoredTeacher
from keras_dskd.internal import replicas
from keras_dskd.internal.types import Nested, Role, Tensor
from keras_dskd.ops.samples import keep_rows


class Forward(NamedTuple):
    """The results of one training forward pass.

    Attributes:
        prediction: The student's output.
        teacher: Dict of layer name -> the teacher's feature, detached. The features
            come from a run of the teacher or from a cache.
        student: Dict of layer name -> the student's feature, after its projector.
        teacher_mask: Bool tensor `(n,)`, false for samples without a teacher; `None` if
            all samples have one.
        teacher_step_masks: Dict of layer name -> Keras mask of the teacher's feature, a
            bool tensor `(n, steps)`, true for real steps. Without features that have
            none.
        student_step_masks: The same for the student.
        penalties: Scalars to add to the total: the `add_loss` values and
            regularization losses of projectors and of layers inside losses.
    """

    prediction: Nested
    teacher: dict[str, Nested]
    student: dict[str, Nested]
    teacher_mask: Tensor | None
    teacher_step_masks: dict[str, Nested]
    student_step_masks: dict[str, Nested]
    penalties: list[Tensor]


class ForwardPass:
    """Runs teacher and student on a batch and captures the features for the losses.

    Args:
        terms: The distillation losses.
        projectors: Dict of student layer name -> layer applied to that feature.
        auxiliary_layers: Projectors, and layers inside losses.
        student_losses: Receives the `add_loss` values of the student's layers.
    """

    def __init__(
        self,
        terms: Sequence[LossTerm],
        projectors: dict[str, keras.layers.Layer],
        auxiliary_layers: Sequence[keras.layers.Layer],
        student_losses: StudentLosses,
    ) -> None:
        self.projectors = projectors
        self.auxiliary_layers = tuple(auxiliary_layers)
        self.student_losses = student_losses
        self._teacher_names = names_read(terms, "teacher")
        self._student_names = names_read(terms, "student")
        self._taps: dict[Role, list[Tap]] = {}

    def run(
        self,
        teacher: keras.Model,
        student: keras.Model,
        pair: pairs.Pair,
        training: bool | None = True,
        **kwargs: Any,
    ) -> Forward:
        """Runs both models once.

        Args:
            teacher: The teacher. Not run if the batch holds cached features.
            student: The student.
            pair: One batch.
            training: Whether the student runs in training mode.
            **kwargs: Further arguments of the student's call.

        Raises:
            ValueError: If the batch has neither input nor cached features for the
                teacher, or the cached features do not fit.
        """
        mask = pairs.row_mask(pair, "teacher_mask")
        # Run the teacher first: its temporaries are freed before the student's
        # activations, which live until the backward pass, are allocated.
        teacher_features, teacher_step_masks = self._read_teacher(
            teacher, student, pair
        )
        if mask is not None:
            teacher_features = keras.tree.map_structure(
                lambda feature: keep_rows(feature, mask), teacher_features
            )
        student_masks = StepMasks()
        student_features = self._read_student(
            student, pair.student, training, student_masks, **kwargs
        )
        with per_replica_losses(*self.auxiliary_layers) as added:
            for name, projector in self.projectors.items():
                student_features[name] = _project(
                    projector, student_features[name], student_masks, training
                )
        losses = [loss for layer in self.auxiliary_layers for loss in layer.losses]
        return Forward(
            prediction=student_features[OUTPUT],
            teacher=teacher_features,
            student=student_features,
            teacher_mask=mask,
            teacher_step_masks=teacher_step_masks,
            student_step_masks=student_masks.of(student_features),
            penalties=[ops.sum(loss) for loss in (*added, *losses)],
        )

    def find_taps(self, role: Role, model: keras.Model) -> list[Tap]:
        """The taps on a built model. The first call finds them, later calls reuse them.

        Raises:
            ValueError: If a layer is not found or its name is ambiguous.
        """
        if role not in self._taps:
            names = self._teacher_names if role == "teacher" else self._student_names
            self._taps[role] = [Tap(model, name) for name in names if name != OUTPUT]
        return self._taps[role]

    def complete_teacher(self, teacher: keras.Model, pair: pairs.Pair) -> None:
        """Builds the teacher before the first step, if the step will run it."""
        if self._teacher_names and pair.teacher_features is None:
            if pair.teacher is not None:
                complete(teacher, pair.teacher, "teacher")

    def _read_teacher(
        self, teacher: keras.Model, student: keras.Model, pair: pairs.Pair
    ) -> tuple[dict[str, Nested], dict[str, Nested]]:
        """The teacher's features, detached, and their step masks."""
        if not self._teacher_names:
            return {}, {}
        if pair.teacher_features is not None:
            features, masks = _check_cached(pair, self._teacher_names)
        else:
            check_teacher(teacher, student, pair)
            self.complete_teacher(teacher, pair)
            taps = self.find_taps("teacher", teacher)
            step_masks = StepMasks()
            with replicas.no_gradients(), capture(taps, step_masks) as features:
                features[OUTPUT] = teacher(pair.teacher, training=False)
            masks = step_masks.of(features)
        return keras.tree.map_structure(ops.stop_gradient, features), masks

    def _read_student(
        self,
        student: keras.Model,
        x: Nested,
        training: bool | None,
        masks: StepMasks,
        **kwargs: Any,
    ) -> dict[str, Nested]:
        if not student.built:
            # Layers that a model creates in `build` cannot be tapped before it.
            student(x, training=False, **kwargs)
        with capture(self.find_taps("student", student), masks) as features:
            features[OUTPUT] = self.predict(student, x, training, **kwargs)
        return features

    def predict(
        self, student: keras.Model, x: Nested, training: bool | None, **kwargs: Any
    ) -> Nested:
        """The student's output alone."""
        with per_replica_losses(student) as self.student_losses.added:
            return student(x, training=training, **kwargs)


def _project(
    projector: keras.layers.Layer,
    feature: Nested,
    masks: StepMasks,
    training: bool | None,
) -> Nested:
    """The projector's output. It gets the feature's mask, and its own mask is noted."""
    (mask,) = masks.get([feature])
    if mask is None:
        return projector(feature, training=training)
    given: dict[str, Any] = {"training": training}
    if "mask" in inspect.signature(projector.call).parameters:
        given["mask"] = mask
    call = LayerCall([feature], {"mask": mask})
    with warnings.catch_warnings():
        if isinstance(projector, keras.Model):
            # Keras warns that a model destroys masks, although its layers get them.
            name = re.escape(projector.name)
            warnings.filterwarnings("ignore", f"Layer '{name}' .* an input with a mask")
        output = projector(feature, **given)
    masks.add_call(projector, call, output)
    return output


def check_teacher(teacher: keras.Model, student: keras.Model, pair: pairs.Pair) -> None:
    """Raises `ValueError` unless the teacher can run on the batch."""
    if isinstance(teacher, StoredTeacher):
        teacher.call(None)  # Says what to pass.
    if pair.teacher is None:
        raise ValueError(
            'Training needs the teacher\'s modality: x["teacher"] is missing. '
            'Pass x={"teacher": ..., "student": ...}, or "teacher_features" from '
            "`cache_teacher` in its place."
        )
    pairs.check_input("teacher", pair, teacher, student)


def _check_cached(
    pair: pairs.Pair, names: Sequence[str]
) -> tuple[dict[str, Nested], dict[str, Nested]]:
    """The batch's cached features and their step masks.

    Raises:
        ValueError: If they do not fit.
    """
    features = pair.teacher_features
    if not isinstance(features, dict):
        raise ValueError(
            'x["teacher_features"] must be a dict of name -> array, as `cache_teacher` '
            f"returns it, with the names that the losses read: {list(names)}. One "
            "array stands for the teacher's final output. "
            f"Received: {type(features).__name__}"
        )
    missing = [name for name in names if name not in features]
    if missing:
        raise ValueError(
            f"The cached teacher features lack {missing}. They hold "
            f"{sorted(features)}. Make them with this distiller's `cache_teacher`, or "
            "name stored outputs as the losses do: teacher_layer_name=..."
        )
    pairs.check_cached_rows(pair)
    return {name: features[name] for name in names}, {
        name: features[mask_key(name)] for name in names if mask_key(name) in features
    }
