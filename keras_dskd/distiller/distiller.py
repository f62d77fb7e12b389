"""The training step: a student learns from labels and from a teacher."""

import functools
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import keras
from keras import ops

from keras_dskd import teacher_cache
from keras_dskd.data import pairs
from keras_dskd.distiller import (
    added_losses,
    arguments,
    loss_interface,
    loss_values,
    summary,
)
from keras_dskd.distiller.loss_weights import (
    LossWeights,
    TermWeights,
    check_weights,
)
from keras_dskd.distiller.loss_weights import (
    deserialize as deserialize_weight,
)
from keras_dskd.distiller.loss_weights import (
    serialize as serialize_weight,
)
from keras_dskd.distiller.metrics import TermMeans
from keras_dskd.distiller.saving import ResumableModel, teacher_of
from keras_dskd.features.feature_model import FeatureModel, ShapesOnly
from keras_dskd.features.layer_graph import layer_ids
from keras_dskd.features.taps import OUTPUT, Tap, capture
from keras_dskd.internal import keras_private, replicas, trainer_state
from keras_dskd.internal.types import (
    Config,
    FilePath,
    Nested,
    Role,
    Shard,
    Tensor,
    Weight,
)
from keras_dskd.ops.checks import check_number
from keras_dskd.ops.samples import keep_rows

if TYPE_CHECKING:
    from typing_extensions import Self


@keras.saving.register_keras_serializable(package="keras_dskd")
class Distiller(keras_private.ReplicaShapes, ResumableModel):
    """Trains a student on one modality with a teacher on another.

    Formula:

    ```
    total = w student_loss + (1 - w) Σ_i w_i distillation_loss_i
    ```

    `student_loss` is what the student's own `fit` would minimise: the compiled loss
    with sample weights, what its layers `add_loss`, and its weights' regularisers.
    (Those of projectors and of layers inside losses are added to the total in
    training, as they are.) Each distillation loss sees float32 features
    of one forward pass of each model; the teacher runs in inference mode, detached,
    and is never changed, whatever `trainable` says. Only training calls it: in
    `evaluate` and `predict` the distiller is the student, and `evaluate` reports no
    distillation terms.

    `fit` takes `x={"teacher": ..., "student": ...}`, each any structure that its
    model takes, from arrays, `tf.data`, `PyDataset`, torch `DataLoader` or
    generators. `{"student": ..., "teacher_features": ...}` replays what
    `cache_teacher` returned. Any other `x` goes to both models.

    Where some samples lack the strong modality, `"teacher_mask"` beside the others,
    an array `(n,)`, is false for them: whatever stands in their place (zeros, NaN) is
    left out of the terms, while their labels count in `student_loss`. A term that is
    a mean over samples is what it would be in a batch without them. One of batch
    statistics that compares with the teacher takes them over the other samples, and
    is 0 with fewer than two; one that reads the student alone looks at all samples.
    In the logs of an epoch each batch counts by its size, as for any Keras loss.

    `sample_weight` and `class_weight` weigh the samples of `student_loss` and of each
    term that is a mean over samples, ours and Keras's: `Σ weight_i value_i / n`. They
    do not reach batch statistics. A loss of your own takes part by naming
    `sample_weight`, or `teacher_mask` for batch statistics, among the arguments of its
    `compute_loss`; one that names `labels` gets the batch's `y`, where there is one.

    Args:
        teacher: A trained `keras.Model` for the strong modality. Left as it is.
        student: The `keras.Model` to train, for the weak modality.
        distillation_losses: One or a list of `keras.distillation.DistillationLoss`:
            from `keras_dskd.losses`, from Keras, or your own. Its
            `teacher_layer_name` and `student_layer_name` say what it compares, each
            the name or path of a layer at any depth (see
            `keras_dskd.features.taps.Tap`), or `None` for that model's final output.
            Layers that a loss holds as attributes are trained.
        distillation_loss_weights: One weight a loss, not negative: a number, or a
            callable of the step such as a
            `keras.optimizers.schedules.LearningRateSchedule`. A step is one training
            batch, counted from 0; a callable gets it as an integer tensor, and is
            compiled: choose with `keras.ops.where`, not with `if`. Can be assigned at
            any time, also while training. Defaults to 1 each.
        student_loss_weight: `w`, between 0 and 1. At 1 the teacher is not run; at 0
            labels are only used for metrics, and may be missing.
        projectors: Dict of student layer name, as the losses have it, to a
            `keras.layers.Layer` that is applied to that feature before the losses
            see it: all losses that read the layer, its own regularisers too.
            Trained with the student, not part of it.
        name: Name of the model.
        **kwargs: Arguments of `keras.Model`.

    Raises:
        ValueError: If a layer is not found or ambiguous, a projector belongs to no
            loss, weights do not match the losses, a number is out of its range, or
            teacher and student are the same object.

    Attributes:
        student: The student, a plain Keras model: `distiller.student.save(...)`.
        teacher: The teacher.
        saves_teacher: Whether files hold the teacher, `True` at first. Set it to
            `False` for checkpoints of callbacks without it; see `save`.

    Metrics: `loss` and `total_loss` (the total), `student_loss`,
    `distillation_loss` (`Σ w_i loss_i`), each compiled metric, and each loss by its
    name, unweighted.

    Example:
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
    distiller.compile(
        "adam",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    distiller.fit({"teacher": optical, "student": radar}, labels)
    distiller.student.save("student.keras")
    ```
    """

    def __init__(
        self,
        teacher: keras.Model,
        student: keras.Model,
        distillation_losses: keras.distillation.DistillationLoss
        | Sequence[keras.distillation.DistillationLoss],
        distillation_loss_weights: Weight | Sequence[Weight] | None = None,
        student_loss_weight: float = 0.5,
        projectors: dict[str, keras.layers.Layer] | None = None,
        name: str = "distiller",
        **kwargs: Any,
    ) -> None:
        # Inputs reach each model as they came: casting is the models' own affair.
        super().__init__(name=name, autocast=False, **kwargs)
        arguments.check_models(teacher, student)
        losses = arguments.check_losses(distillation_losses)
        check_number("student_loss_weight", student_loss_weight, most=1)
        self.teacher = teacher
        self.student = student
        self.distillation_losses = losses
        self.projectors = arguments.check_projectors(projectors, losses)
        self._loss_layers = loss_interface.layers_in(losses, teacher)
        held = set().union(*map(layer_ids, self._held_layers()))
        self._holds_of_teacher = not held.isdisjoint(layer_ids(teacher))
        self._term_weights = TermWeights(
            student_loss_weight,
            check_weights(distillation_loss_weights, len(losses)),
        )
        self._taps: dict[Role, list[Tap]] = {}
        for role in ("teacher", "student"):
            if getattr(self, role).built:
                self._find_taps(role)
        for loss in losses:
            arguments.check_compatible(loss, teacher, student)
        self._means = TermMeans(
            [
                "student_loss",
                "distillation_loss",
                "total_loss",
                *loss_interface.names(losses),
            ]
        )
        self._not_computed: set[str] = set()
        # From `call` to `compute_loss` of the same step, in the same thread.
        self._handed_over = threading.local()
        inputs = pairs.input_of(teacher), pairs.input_of(student)
        if None not in inputs and not self._is_ready():
            self._build_held_layers(*inputs)
        self.built = self.teacher.built and self._is_ready()

    @property
    def distillation_loss_weights(self) -> list[Weight]:
        """The weights, one a loss. Assign the list or an item at any time."""
        return LossWeights(self._term_weights.given, self._set_loss_weights)

    @distillation_loss_weights.setter
    def distillation_loss_weights(
        self, loss_weights: Weight | Sequence[Weight] | None
    ) -> None:
        self._set_loss_weights(loss_weights)

    def _set_loss_weights(self, loss_weights: Weight | Sequence[Weight] | None) -> None:
        given = check_weights(loss_weights, len(self.distillation_losses))
        previous = self._term_weights.given
        self._sync_state()
        self._term_weights.set_losses(given)
        if list(filter(callable, previous)) != list(filter(callable, given)):
            self._compile_step_again()

    @property
    def student_loss_weight(self) -> float:
        """Weight of the student's own loss, between 0 and 1. Assign at any time."""
        return self._term_weights.student_number

    @student_loss_weight.setter
    def student_loss_weight(self, weight: float) -> None:
        check_number("student_loss_weight", weight, most=1)
        previous = self.student_loss_weight
        self._sync_state()
        self._term_weights.set_student(weight)
        # At 0 and at 1 one half is left out of the step when it is compiled.
        if previous != weight and {previous, float(weight)} & {0.0, 1.0}:
            self._compile_step_again()

    def _sync_state(self) -> None:
        # Within an epoch the JAX trainer holds the state outside the variables.
        if hasattr(self, "jax_state_sync"):
            self.jax_state_sync()

    def _compile_step_again(self) -> None:
        if getattr(self, "train_function", None) is not None:
            self.make_train_function(force=True)

    @property
    def trainable(self) -> bool:
        """Whether the student's side is trained. The teacher never is."""
        return keras_private.trainable_flag(self)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        keras_private.set_trainable_flag(self, bool(value))
        for layer in (self.student, *self._held_layers()):
            layer.trainable = value

    # The torch trainer reads `trainable_weights`, the others `trainable_variables`.
    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """Variables of the student's side that are trained."""
        return self._trained("trainable_variables")

    @property
    def trainable_weights(self) -> list[keras.Variable]:
        """Weights of the student's side that are trained."""
        return self._trained("trainable_weights")

    @property
    def non_trainable_variables(self) -> list[keras.Variable]:
        """All other variables, the teacher's among them: state of the step."""
        return _without(self.variables, self.trainable_variables)

    @property
    def non_trainable_weights(self) -> list[keras.Variable]:
        """All other weights, the teacher's among them."""
        return _without(self.weights, self.trainable_weights)

    def _trained(self, kind: str) -> list[keras.Variable]:
        if not self.trainable:
            return []
        parts = [self.student, *self._held_layers()]
        others = [self.teacher, self._term_weights, self._seed_states]
        known = {id(part) for part in (*parts, *others)}
        is_plain = known.issuperset(map(id, self.layers))
        if (
            is_plain
            and not keras_private.has_own_trainable_variables(self)
            and not self._holds_of_teacher
        ):
            # The torch trainer asks in each step: what the teacher has is not walked.
            found = [variable for part in parts for variable in getattr(part, kind)]
            return list({id(variable): variable for variable in found}.values())
        # A subclass has layers or weights of its own, or a projector the teacher's.
        # What teacher and student share is the student's to train.
        of_teacher = _without(self.teacher.weights, self.student.weights)
        return _without(getattr(super(), kind), of_teacher)

    def build(self, input_shape: Nested = None) -> None:
        """Nothing to do: each model builds itself when it is called."""
        self.built = True

    def call(
        self, inputs: Nested, training: bool | None = None, **kwargs: Any
    ) -> Nested:
        """The student's prediction."""
        pair = pairs.split(inputs)
        pairs.check_input("student", pair, self.teacher, self.student)
        distils = self._distils(training)
        if not distils and self._is_ready():
            return self._student_output(pair.student, training, **kwargs)
        if not self.student.built:
            # Layers that a model makes in its `build` cannot be tapped before.
            self.student(pair.student, training=False, **kwargs)
        teacher_features = None
        if distils and self.teacher.built and pairs.holds_teacher(inputs, self.teacher):
            # Before the student, whose activations stay in memory until the backward
            # pass: what the teacher needs in passing is free again by then.
            teacher_features = self._teacher_features(pair)
        features = self._student_features(pair.student, training, **kwargs)
        if distils:
            self._handed_over.features = teacher_features, features
        elif not self._is_ready() and pairs.holds_teacher(inputs, self.teacher):
            # Layers inside losses get their shapes before the first step.
            self._build_held_layers(pair.teacher, pair.student)
        return features[OUTPUT]

    def _student_features(
        self, x: Nested, training: bool | None, **kwargs: Any
    ) -> dict[str, Nested]:
        with capture(self._find_taps("student")) as features:
            features[OUTPUT] = self._student_output(x, training, **kwargs)
        with added_losses.kept_apart(*self._held_layers()) as added:
            for name, projector in self.projectors.items():
                features[name] = projector(features[name], training=training)
        losses = [loss for layer in self._held_layers() for loss in layer.losses]
        self._handed_over.penalties = [ops.sum(loss) for loss in (*added, *losses)]
        return features

    def _student_output(
        self, x: Nested, training: bool | None, **kwargs: Any
    ) -> Nested:
        with added_losses.kept_apart(self.student) as self._handed_over.added_losses:
            return self.student(x, training=training, **kwargs)

    def _held_layers(self) -> tuple[keras.layers.Layer, ...]:
        return (*self.projectors.values(), *self._loss_layers)

    @property
    def losses(self) -> list[Tensor]:
        """What the student's layers and regularisers add to its loss."""
        # The JAX trainer carries over what `call` collected.
        carried_over = keras_private.stateless_losses(self)
        kept_apart = getattr(self._handed_over, "added_losses", ())
        return carried_over or [
            *keras_private.own_losses(self),
            *self.student.losses,
            *kept_apart,
        ]

    def _build_held_layers(self, x_teacher: Nested, x_student: Nested) -> None:
        """Builds projectors and layers inside losses, from shapes alone."""
        # Labels are not known here.
        losses = [
            loss
            for loss in self.distillation_losses
            if loss_interface.layers_in([loss], self.teacher)
            or not loss_interface.reads_labels(loss)
        ]

        def terms_of(x: Nested) -> list[Tensor]:
            teacher_features = self._teacher_features(pairs.Pair(x[0], x[1], None))
            student_features = self._student_features(x[1], training=False)
            return loss_interface.values(losses, teacher_features, student_features)

        ShapesOnly(terms_of).compute_output_spec(
            keras.tree.map_structure(
                lambda array: keras.KerasTensor(
                    array.shape, keras.backend.standardize_dtype(array.dtype)
                ),
                [x_teacher, x_student],
            )
        )

    def compute_loss(
        self,
        x: Nested = None,
        y: Nested = None,
        y_pred: Nested = None,
        sample_weight: Nested = None,
        training: bool = True,
    ) -> Tensor:
        """The total in training, the student's own loss otherwise.

        Args:
            x: A batch of input, paired or not.
            y: Its labels.
            y_pred: The student's prediction for it.
            sample_weight: Weights of the samples, for the compiled loss.
            training: Whether to distil.

        Returns:
            Scalar.

        Raises:
            ValueError: If labels or the teacher's input are missing, or a loss does
                not fit its features.
        """
        pair = pairs.split(x)
        distils = self._distils(training)
        teacher_features, features = self._take_features()
        if y_pred is None or (
            # The features must be those of the very pass that made the prediction.
            distils and features.get(OUTPUT) is not y_pred
        ):
            y_pred = self(x, training=training)
            teacher_features, features = self._take_features()
        samples = ops.shape(keras.tree.flatten(pair.student)[0])[0]
        computed = {}
        student_loss = self._student_loss(x, y, y_pred, sample_weight, training)
        if student_loss is not None:
            computed["student_loss"] = student_loss
        if distils:
            if teacher_features is None:
                teacher_features = self._teacher_features(pair)
            values = self._term_values(
                pair, y, teacher_features, features, sample_weight
            )
            names = loss_interface.names(self.distillation_losses)
            computed.update(zip(names, values, strict=True))
        penalties = vars(self._handed_over).pop("penalties") if distils else []
        if training:  # (Outside of it a process may well be alone.)
            means, samples = replicas.means([*computed.values(), *penalties], samples)
            computed = dict(zip(computed, means, strict=False))
            penalties = means[len(computed) :]
        total = student_loss = computed.get("student_loss")
        if distils:
            distillation_loss = self._term_weights.weighted_sum(
                [computed[name] for name in names]
            )
            computed["distillation_loss"] = distillation_loss
            total = (1.0 - self._term_weights.student) * distillation_loss
            for penalty in penalties:
                total = total + penalty
            if self.student_loss_weight > 0:
                total = total + self._term_weights.student * student_loss
        if total is not None:
            computed["loss"] = computed["total_loss"] = total
        else:
            total = ops.zeros(())
        if training:
            self._term_weights.advance()
        self._not_computed = {"loss", *self._means.names} - set(computed)
        self._means.update_state(computed, samples)
        return replicas.gradient_share(total)

    def _term_values(
        self,
        pair: pairs.Pair,
        y: Nested,
        teacher_features: dict[str, Nested],
        features: dict[str, Nested],
        sample_weight: Nested,
    ) -> list[Tensor]:
        mask = pairs.teacher_mask(pair)
        if mask is not None:
            teacher_features = keras.tree.map_structure(
                lambda feature: keep_rows(feature, mask), teacher_features
            )
        return loss_interface.values(
            self.distillation_losses,
            teacher_features,
            features,
            sample_weight=loss_values.of_terms(sample_weight, mask),
            teacher_mask=mask,
            labels=y,
        )

    def make_train_function(self, force: bool = False) -> None:
        """Compiles the step; see `keras.Model.make_train_function`."""
        replicas.check_fit()
        super().make_train_function(force)
        self.train_function: Callable[..., Any] = trainer_state.keeping_state(
            self, self.train_function
        )

    @functools.wraps(keras.Model.fit)
    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Trains the student; see `keras.Model.fit`."""
        with trainer_state.explaining_division():
            return super().fit(*args, **kwargs)

    @functools.wraps(keras.Model.evaluate)
    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Loss and metrics of the student alone; see `keras.Model.evaluate`."""
        with trainer_state.keeping_values(self):
            return super().evaluate(*args, **kwargs)

    @functools.wraps(keras.Model.predict)
    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Outputs of the student alone; see `keras.Model.predict`."""
        with trainer_state.keeping_values(self):
            return super().predict(*args, **kwargs)

    def _distils(self, training: bool | None) -> bool:
        return bool(training) and self.student_loss_weight < 1

    def test_step(self, *args: Any) -> Any:
        """One step of `evaluate`: the student's own, which needs labels."""
        # The JAX trainer passes its state first.
        _, y, _ = keras.utils.unpack_x_y_sample_weight(args[-1])
        if self.loss is not None and y is None:
            raise ValueError(
                "Labels are missing: y=None. Pass `y`: `evaluate` needs it."
            )
        return super().test_step(*args)

    def _student_loss(
        self,
        x: Nested,
        y: Nested,
        y_pred: Nested,
        sample_weight: Nested,
        training: bool,
    ) -> Tensor | None:
        lacks_labels = self.loss is not None and y is None
        lacks_loss = self.loss is None and not self.losses
        if not lacks_labels and not lacks_loss:
            return replicas.without_keras_share(
                super().compute_loss(x, y, y_pred, sample_weight, training)
            )
        if self.student_loss_weight == 0:
            return None
        what = (
            "Labels are missing: y=None. Pass `y`"
            if lacks_labels
            else "There is no loss for the student. Pass `loss` to `compile`"
        )
        raise ValueError(
            f"{what}, or use student_loss_weight=0 to train on the teacher alone."
        )

    def _take_features(
        self,
    ) -> tuple[dict[str, Nested] | None, dict[str, Nested]]:
        return vars(self._handed_over).pop("features", (None, {}))

    def _teacher_features(self, pair: pairs.Pair) -> dict[str, Nested]:
        names = loss_interface.keys(self.distillation_losses, "teacher")
        if not names:
            return {}
        if pair.teacher_features is None:
            self._check_teacher(pair)
            taps = self._find_taps("teacher")
            with replicas.no_gradients(), capture(taps) as features:
                features[OUTPUT] = self.teacher(pair.teacher, training=False)
        else:
            features = pair.teacher_features
            if not isinstance(features, dict):
                raise ValueError(
                    'x["teacher_features"] is the dict that `cache_teacher` returned, '
                    f"of name to array. Received: {type(features).__name__}"
                )
            missing = [name for name in names if name not in features]
            if missing:
                raise ValueError(
                    f"The cached teacher features lack {missing}. They hold "
                    f"{sorted(features)}. Make them with this distiller's "
                    "`cache_teacher`."
                )
            pairs.check_cached_rows(pair)
        return keras.tree.map_structure(ops.stop_gradient, features)

    def _check_teacher(self, pair: pairs.Pair) -> None:
        if pair.teacher is None:
            raise ValueError(
                'Training needs the teacher\'s modality: x["teacher"] is missing. '
                'Pass x={"teacher": ..., "student": ...}, or "teacher_features" from '
                "`cache_teacher` in its place."
            )
        if not self.teacher.built:
            raise ValueError(
                f"The teacher {self.teacher.name!r} has no weights yet. Train it or "
                "load its weights before distilling from it."
            )
        pairs.check_input("teacher", pair, self.teacher, self.student)

    def _find_taps(self, role: Role) -> list[Tap]:
        if role not in self._taps:
            names = loss_interface.keys(self.distillation_losses, role)
            model = getattr(self, role)
            self._taps[role] = [Tap(model, name) for name in names if name != OUTPUT]
        return self._taps[role]

    def _is_ready(self) -> bool:
        return self.student.built and all(held.built for held in self._held_layers())

    def cache_teacher(
        self,
        x_teacher: Nested,
        path: FilePath | None = None,
        batch_size: int = 32,
        *,
        dtype: Literal["float16", "float32"] | None = None,
        verify: bool = True,
        verbose: int | Literal["auto"] = "auto",
        shard: Shard | None = None,
    ) -> dict[str, Nested]:
        """Runs the teacher once over a data set; training then replays it.

        With a `path`, features go to disk as they come, and no more than some batches
        are in memory. The folder holds an `.npy` file a feature and `manifest.json`.
        Called again with the same arguments, it goes on where it was stopped, even by
        a kill; once finished, it opens the files, and the teacher is not run. A cache
        of other weights, layers, samples, values or another `dtype` is refused.
        `keras_dskd.open_teacher_cache(path)` opens it without teacher or distiller.

        There is one row a sample. A feature that all its losses pool, as
        `ChannelIndependence` and `ChannelAlignment` do, is kept pooled: `4 c` bytes a
        sample. Other losses pool as they like, so that for them a feature map of shape
        `(h, w, c)` is kept whole: `4 h w c` bytes a sample. The size is printed, and
        compared with the room on the disk, before anything is written.

        `fit` reads memory-mapped arrays batch by batch on JAX and torch. On
        TensorFlow, and on any backend where they are float16, Keras copies them to
        memory as a whole, as float32; `keras_dskd.CachedDataset` never does.

        Args:
            x_teacher: The strong modality of all samples, in their order: any input
                that `keras.Model.predict` takes, or `fit`'s dict that holds it, or a
                data set of either. With a `path`, arrays or a `PyDataset` that has a
                length, gives the same rows each time, and batches of one size but for a
                smaller last one.
            path: Folder of the cache. Defaults to arrays in memory.
            batch_size: Samples at once, where `x_teacher` is arrays. A cache that
                goes on with another one may differ by rounding.
            dtype: `"float16"` takes half the room; the error that it costs is printed,
                and written to the manifest. Values above 65504 are refused. Defaults
                to what the teacher computes, and to float32 where that is bfloat16,
                which NumPy's files lack.
            verify: Whether opening a finished cache reads all of it to compare
                checksums.
            verbose: 0 for silence, 1 or `"auto"` for a progress bar.
            shard: `(index, count)` where `count` processes share the work: only the
                rows `keras_dskd.shard_rows(samples, shard)` are run and returned, and
                written to a folder of their own within `path`. Processes need not know
                one another for it: call it before they are joined.

        Returns:
            A dict of arrays, in memory or memory-mapped, one row a sample: what
            `fit({"student": ..., "teacher_features": ...}, ...)` takes.

        Raises:
            ValueError: If the teacher has no weights yet, or the folder holds another
                cache, a damaged one, or something else.
            OSError: If the disk lacks room.
        """
        pair = pairs.split(x_teacher)
        self._check_teacher(pair)
        losses = self.distillation_losses
        names = loss_interface.keys(losses, "teacher")
        if not names:
            raise ValueError(
                "No loss reads the teacher: there is nothing to cache. Received: "
                f"{[type(loss).__name__ for loss in losses]}"
            )
        features = FeatureModel(
            self.teacher,
            names,
            loss_interface.pooled_of_teacher(losses),
            takes=pairs.teacher_input,
        )
        return teacher_cache.cache_features(
            features, pair.teacher, path, batch_size, dtype, verify, verbose, shard
        )

    __repr__ = summary.line
    summary = summary.summary

    def get_metrics_result(self) -> dict[str, Any]:
        """The metrics' values; what the step did not compute is left out, not 0."""
        return {
            name: result
            for name, result in super().get_metrics_result().items()
            if name not in self._not_computed
        }

    def get_config(self) -> Config:
        serialize = keras.saving.serialize_keras_object
        config = super().get_config()
        config.update(
            {
                "teacher": self._teacher_config(),
                "student": serialize(self.student),
                "distillation_losses": [serialize(i) for i in self.distillation_losses],
                "distillation_loss_weights": [
                    serialize_weight(weight) for weight in self._term_weights.given
                ],
                "student_loss_weight": self.student_loss_weight,
                "projectors": {
                    layer_name: serialize(projector)
                    for layer_name, projector in self.projectors.items()
                },
            }
        )
        return config

    @classmethod
    def from_config(cls, config: Config) -> "Self":
        deserialize = keras.saving.deserialize_keras_object
        config = dict(config)
        config["teacher"], is_left_out = teacher_of(config["teacher"])
        config["student"] = deserialize(config["student"])
        config["distillation_losses"] = [
            deserialize(loss) for loss in config["distillation_losses"]
        ]
        config["distillation_loss_weights"] = [
            deserialize_weight(weight) for weight in config["distillation_loss_weights"]
        ]
        config["projectors"] = {
            layer_name: deserialize(projector)
            for layer_name, projector in config.get("projectors", {}).items()
        }
        made = cls(**config)
        made._awaits_teacher = is_left_out
        made.saves_teacher = not is_left_out
        return made


def _without(
    variables: Iterable[keras.Variable], others: Iterable[keras.Variable]
) -> list[keras.Variable]:
    excluded = {id(variable) for variable in others}
    return [variable for variable in variables if id(variable) not in excluded]
