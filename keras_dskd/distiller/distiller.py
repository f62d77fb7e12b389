"""The model of teacher and student, and its training step."""

import functools
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_dskd.data import pairs
from keras_dskd.distiller import arguments
from keras_dskd.distiller.added_losses import StudentLosses
from keras_dskd.distiller.building import build_auxiliary_layers
from keras_dskd.distiller.caching import CachesTeacher
from keras_dskd.distiller.evaluating import EvaluatesTeacher, runs_teacher
from keras_dskd.distiller.forward import Forward, ForwardPass
from keras_dskd.distiller.idle_teacher import IdlesTeacher
from keras_dskd.distiller.label_masks import (
    ReadsLabelMask,
    count_of_labeled,
    label_mask,
)
from keras_dskd.distiller.loss_term import make_terms
from keras_dskd.distiller.loss_values import loss_values
from keras_dskd.distiller.loss_weights import (
    LossWeightState,
    check_student_weight,
    check_weights,
)
from keras_dskd.distiller.metrics import LossMeans
from keras_dskd.distiller.reports import ReportsLosses
from keras_dskd.distiller.saving import ResumableModel
from keras_dskd.distiller.student_rules import warn_of_own_steps
from keras_dskd.distiller.summary import one_line, print_summary
from keras_dskd.distiller.tasks import FitsTask
from keras_dskd.distiller.trainable import TrainsStudent
from keras_dskd.distiller.trainer import GuardedTrainer
from keras_dskd.features.layer_graph import layer_ids
from keras_dskd.features.teachers import StoredTeacher, Teacher, as_model
from keras_dskd.internal import keras_private, replicas
from keras_dskd.internal.metric_names import TOTALS
from keras_dskd.internal.types import Nested, Tensor, Weight


@keras.saving.register_keras_serializable(package="keras_dskd")
class Distiller(
    TrainsStudent,
    ReportsLosses,
    ReadsLabelMask,
    CachesTeacher,
    EvaluatesTeacher,
    IdlesTeacher,
    GuardedTrainer,
    FitsTask,
    ResumableModel,
):
    """Trains a student on one modality with a teacher on another.

    ```python
    distiller = keras_dskd.Distiller(
        teacher,
        student,
        [
            keras_dskd.losses.SoftTargets(temperature=4.0),
            keras_dskd.losses.ChannelIndependence("pool", "pool"),
        ],
        distillation_loss_weights=[1.0, 0.5],
        projectors={"pool": keras.layers.Dense(64)},
    )
    crossentropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile("adam", crossentropy, metrics=["accuracy"])
    distiller.fit({"teacher": optical, "student": radar}, labels)
    distiller.student.save("student.keras")
    ```

    Formula: `total = w · student_loss + (1 - w) · Σ_i w_i · distillation_loss_i`

    `student_loss` is what the student's own `fit` would minimize: the compiled loss
    with sample weights, plus the student's `add_loss` values and regularization losses;
    or what the student's class computes in its own `compute_loss`. Such a student may
    be compiled before, and `distiller.compile` then needs no `loss`.
    Each distillation loss reads float32 features from one forward pass of each model.
    The teacher runs in inference mode, detached, and never changes, whatever
    `trainable` says. `evaluate` and `predict` run the student
    alone, unless `evaluates_teacher` says otherwise.

    `fit` takes `x={"teacher": ..., "student": ...}`, each any structure that its model
    takes, from arrays, `tf.data`, `PyDataset`, torch `DataLoader` or generators.
    `{"student": ..., "teacher_features": ...}` replays what `cache_teacher` returned,
    or reads the outputs of any teacher: a dict that maps the names that the losses read
    to arrays, or one array if the losses only read the final output.
    Any other `x` goes to both models.

    `"teacher_mask"` in `x`, an array `(n,)`, is false for samples that lack the strong
    modality. Their teacher input (zeros, NaN) is ignored, but their labels count. Batch
    statistics that compare with the teacher leave these samples out, and are 0 if fewer
    than two remain. Batch statistics of the student alone use all samples.

    `"label_mask"` in `x`, an array `(n,)`, is false for samples without labels,
    whatever stands in `y` there. They count in every distillation loss that reads no
    labels, and in no other loss or metric: `student_loss` is the mean over the samples
    with labels, and 0 if a batch has none. See `keras_dskd.with_unlabeled`.

    `sample_weight` and `class_weight` also weight the samples of every distillation
    loss that is a mean over samples: `Σ weight_i · value_i / n`. Batch statistics
    ignore them. If each output has its own weights, a loss of one output gets those,
    and any other loss gets their mean. A loss of your own gets `sample_weight`,
    `teacher_mask` (for batch statistics) and the batch's `labels` if its `compute_loss`
    has such arguments.

    Args:
        teacher: A trained `keras.Model` for the strong modality. Left unchanged. Or a
            dict of several, `{"optical": ..., "ensemble": ...}`: a loss then reads
            `"optical"`, its output, or a layer, `"optical/block2"`, and `x["teacher"]`
            is a dict with the same keys, or one input for all. Or `None`, if every
            batch brings the teacher's stored outputs as `x["teacher_features"]`.
        student: The `keras.Model` to train, for the weak modality.
        distillation_losses: One or a list of `keras.distillation.DistillationLoss`,
            from `keras_dskd.losses`, from Keras, or your own. `teacher_layer_name` and
            `student_layer_name` name the layers that a loss compares, at any depth
            (see `keras_dskd.features.taps.Tap`); `None` means the final output. Layers
            that a loss holds as attributes are trained.
        distillation_loss_weights: One weight >= 0 per loss: a number, or a callable of
            the step such as a `keras.optimizers.schedules.LearningRateSchedule`. Steps
            are training batches, counted from 0. The callable gets an integer tensor
            and is compiled: use `keras.ops.where`, not `if`. Assign the list or an item
            at any time, also during training. Defaults to 1 each.
        student_loss_weight: `w`, between 0 and 1: a number, or a callable of the step,
            as above. Assign it at any time. At 1 the teacher is not run. At 0
            labels only serve metrics, and may be missing.
        projectors: Maps a student layer name to a `keras.layers.Layer` that is applied
            to that feature before any loss reads it. Projectors are trained, and are
            not part of the student. Their `add_loss` values and regularization losses
            are part of the total.
        name: Name of the model.
        **kwargs: Arguments of `keras.Model`.

    Raises:
        ValueError: If a layer is not found or is ambiguous, no loss reads a projector's
            layer, weights do not match the losses, a number is out of range, or teacher
            and student are the same object.

    Attributes:
        student: The student, a plain Keras model: `distiller.student.save(...)`.
        teacher: The teacher.
        loss_terms: One object per distillation loss: its name, weight and layers.
        evaluates_teacher: Whether `evaluate` on pairs computes the distillation losses,
            too. `False` by default. It always does if there is no loss for labels.
        saves_teacher: Whether saved files include the teacher, `True` by default. Set
            it to `False` for checkpoints of callbacks without the teacher; see `save`.

    Metrics: `loss` and `total_loss` (the total), `student_loss`, `distillation_loss`
    (`Σ w_i · loss_i`), each compiled metric, and each distillation loss by its name,
    unweighted. Where `evaluate` runs the student alone, `loss` and `total_loss` are the
    student's loss.
    """

    # Saved files address variables by attribute names: `_loss_layers`, `_means`,
    # `_seed_states` and `_term_weights` must keep theirs.

    def __init__(
        self,
        teacher: Teacher,
        student: keras.Model,
        distillation_losses: keras.distillation.DistillationLoss
        | Sequence[keras.distillation.DistillationLoss],
        distillation_loss_weights: Weight | Sequence[Weight] | None = None,
        student_loss_weight: Weight = 0.5,
        projectors: dict[str, keras.layers.Layer] | None = None,
        name: str = "distiller",
        **kwargs: Any,
    ) -> None:
        teacher_model = as_model(teacher)
        arguments.check_models(teacher_model, student)
        warn_of_own_steps(student)
        # `compile` scales the loss if the policy is "mixed_float16". Each model casts
        # its own inputs.
        kwargs.setdefault("dtype", student.dtype_policy)
        super().__init__(name=name, autocast=False, **kwargs)
        losses = arguments.check_losses(distillation_losses)
        check_student_weight(student_loss_weight)
        loss_weights = check_weights(distillation_loss_weights, len(losses))
        self.teacher = teacher_model
        self.student = student
        self.distillation_losses = losses
        self.loss_terms = make_terms(losses, teacher_model)
        arguments.check_named_teachers(self.loss_terms, teacher_model)
        self.projectors = arguments.check_projectors(projectors, self.loss_terms)
        self._loss_layers = arguments.distinct_layers(self.loss_terms)
        auxiliary = set().union(*map(layer_ids, self._auxiliary_layers))
        self._shares_with_teacher = not auxiliary.isdisjoint(layer_ids(teacher_model))
        self._term_weights = LossWeightState(
            student_loss_weight, self.loss_terms, loss_weights
        )
        self._means = LossMeans([*TOTALS[1:], *(term.name for term in self.loss_terms)])
        self._student_losses = StudentLosses()
        self._pass = ForwardPass(
            self.loss_terms,
            self.projectors,
            self._auxiliary_layers,
            self._student_losses,
        )
        if teacher_model.built and not isinstance(teacher_model, StoredTeacher):
            self._pass.find_taps("teacher", teacher_model)
        if student.built:
            self._pass.find_taps("student", student)
        for loss in losses:
            arguments.check_compatible(loss, teacher_model, student)
        inputs = pairs.input_of(teacher_model), pairs.input_of(student)
        if None not in inputs and not self._is_ready():
            build_auxiliary_layers(self, *inputs)
        self.built = teacher_model.built and self._is_ready()

    def build(self, input_shape: Nested = None) -> None:
        """Does nothing: each model builds itself when it is called."""
        self.built = True

    def _is_ready(self) -> bool:
        return self.student.built and all(
            layer.built for layer in self._auxiliary_layers
        )

    def _distills(self, training: bool | None) -> bool:
        return bool(training) and not self._student_weighs(1)

    def run_models(
        self, pair: pairs.Pair, training: bool | None = True, **kwargs: Any
    ) -> Forward:
        """One forward pass of both models, with every feature that the losses read."""
        return self._pass.run(self.teacher, self.student, pair, training, **kwargs)

    def call(
        self, inputs: Nested, training: bool | None = None, **kwargs: Any
    ) -> Nested | Forward:
        """Runs the models.

        Returns:
            In training a `Forward`, which holds the student's prediction and everything
            that `compute_loss` needs. Outside training, and if `student_loss_weight` is
            1, the student's prediction.
        """
        pair = pairs.split(inputs)
        pairs.check_input("student", pair, self.teacher, self.student)
        if self._distills(training) or (not training and runs_teacher()):
            return self.run_models(pair, training, **kwargs)
        is_before_training = self._fit_begins and self._distills(training=True)
        self._fit_begins = False
        if is_before_training:
            self._pass.complete_teacher(self.teacher, pair)
        prediction = self._pass.predict(self.student, pair.student, training, **kwargs)
        if not self._is_ready() and (
            is_before_training or pairs.holds_teacher(inputs, self.teacher)
        ):
            # Layers inside losses get their shapes before the first step.
            build_auxiliary_layers(
                self, pair.teacher, pair.student, pair.teacher_features
            )
        return prediction

    @property
    def losses(self) -> list[Tensor]:
        """The `add_loss` values and regularization losses of the student."""
        return keras_private.stateless_losses(self) or [
            *keras_private.own_losses(self),
            *self.student.losses,
            *self._student_losses.added,
        ]

    def compute_loss(
        self,
        x: Nested = None,
        y: Nested = None,
        y_pred: Nested | Forward = None,
        sample_weight: Nested = None,
        training: bool = True,
    ) -> Tensor:
        """The total in training, the student's own loss otherwise.

        Args:
            x: A batch of input, paired or not.
            y: Its labels.
            y_pred: What `distiller(x, training=training)` returned. If it is missing,
                the models are run.
            sample_weight: Weights of the samples.
            training: Whether to distill.

        Returns:
            Scalar.

        Raises:
            ValueError: If labels or the teacher's input are missing, or a loss does not
                fit its features.
        """
        if y_pred is None:
            y_pred = self(x, training=training)
        distills = isinstance(y_pred, Forward)
        if self._distills(training) and not distills:
            raise ValueError(
                "Training compares features of the pass that made the prediction. Pass "
                "y_pred=distiller(x, training=True), or leave it out. Received: "
                f"{type(y_pred).__name__}"
            )
        values: dict[str, Tensor] = {}
        if self._has_student_loss(y):
            self._check_loss_of_student()
            prediction = y_pred.prediction if distills else y_pred
            values["student_loss"] = self.compute_student_loss(
                x, y, prediction, sample_weight, training
            )
        penalties: list[Tensor] = []
        if distills:
            distilled = loss_values(
                self.loss_terms,
                y_pred.teacher,
                y_pred.student,
                sample_weight=sample_weight,
                teacher_mask=y_pred.teacher_mask,
                label_mask=label_mask(x),
                labels=y,
                student=self.student,
                step=self._term_weights.step,
                teacher_step_masks=y_pred.teacher_step_masks,
                student_step_masks=y_pred.student_step_masks,
            )
            names = [term.name for term in self.loss_terms]
            values.update(zip(names, distilled, strict=True))
            penalties = y_pred.penalties
        first_input = next(i for i in keras.tree.flatten(x) if i is not None)
        samples = ops.shape(first_input)[0]
        if training:  # Evaluation may run in only one of several processes.
            means, samples = replicas.means([*values.values(), *penalties], samples)
            values = dict(zip(values, means, strict=False))
            penalties = means[len(values) :]
        total = self._total(values, penalties, distills)
        if training:
            self._term_weights.advance()
        elif not distills:
            values.pop("student_loss", None)  # It is the total.
        labeled = count_of_labeled(x, training)
        self._means.update_state(values, samples, labeled)
        return replicas.gradient_share(total)

    def __repr__(self) -> str:
        return one_line(self)

    @functools.wraps(keras.Model.summary)
    def summary(self, *args: Any, **kwargs: Any) -> None:
        print_summary(self, *args, **kwargs)
