"""What a distiller takes over from its student: names, and overridden methods."""

import inspect
import warnings
from typing import Any

import keras
from keras import ops

from keras_dskd.data import pairs
from keras_dskd.distiller.added_losses import StudentLosses
from keras_dskd.distiller.metrics import LossMeans
from keras_dskd.internal import keras_private, replicas, trainer_state
from keras_dskd.internal.types import FilePath, Nested, Tensor


def overrides(model: keras.Model, method: str) -> bool:
    """Whether a model's class has its own version of a method of `keras.Model`."""
    return getattr(type(model), method) is not getattr(keras.Model, method)


def warn_of_own_steps(student: keras.Model) -> None:
    """Warns if the student's class trains or tests in a way that is not followed."""
    own = [name for name in ("train_step", "test_step") if overrides(student, name)]
    if own:
        warnings.warn(
            f"The student {student.name!r} of type {type(student).__name__} has its "
            f"own {' and '.join(f'`{name}`' for name in own)}, which the distiller "
            "does not run: one step of `fit` is one update that minimizes the total. "
            "Whatever else the student's step does (several updates, accumulated or "
            "perturbed gradients, other inputs or losses) does not happen. Move the "
            "loss to the student's `compute_loss`, which the distiller calls, or "
            "override `train_step` in a subclass of `keras_dskd.Distiller`.",
            stacklevel=3,
        )


class FollowsStudent(keras.Model):
    """A model that computes its student's loss and outputs as the student does."""

    student: keras.Model
    _student_losses: StudentLosses

    @property
    def output_names(self) -> list[str]:
        """The student's output names, for losses, metrics and labels by name.

        Raises:
            AttributeError: If the student names no outputs, as subclassed models.
        """
        return self.student.output_names

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "adam",
        loss: Any = None,
        metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        """As `keras.Model.compile`.

        Without `loss`, a student with its own `compute_loss` keeps the losses and the
        metrics that its own `compile` got.
        """
        kwargs.update(loss=loss, metrics=metrics)
        if loss is None and overrides(self.student, "compute_loss"):
            given = {name: kwargs[name] for name in kwargs if kwargs[name] is not None}
            kwargs.update(keras_private.compiled_arguments(self.student) | given)
        super().compile(optimizer, **kwargs)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """All metrics, including those that the student holds and updates itself."""
        own = super().metrics
        return own + self._metrics_of_student(own)

    def _metrics_of_student(
        self, own: list[keras.metrics.Metric]
    ) -> list[keras.metrics.Metric]:
        compiled = keras_private.metrics_of_compile(self.student)
        others = {id(metric) for metric in (*compiled, *own)}
        return [metric for metric in self.student.metrics if id(metric) not in others]

    def get_metrics_result(self) -> dict[str, Any]:
        """The metrics' values. The student's own "loss" does not replace the total."""
        own = super().metrics
        results: dict[str, Any] = {}
        for metric in (*own, *self._metrics_of_student(own)):
            result = metric.result()
            named = result if isinstance(result, dict) else {metric.name: result}
            # An output named "student" has a loss named "student_loss", too.
            is_ours = isinstance(metric, LossMeans)
            results.update(
                {k: v for k, v in named.items() if is_ours or k not in results}
            )
        return results

    def compute_student_loss(
        self,
        x: Nested,
        y: Nested,
        prediction: Nested,
        sample_weight: Nested,
        training: bool,
    ) -> Tensor:
        """What the student's own `fit` would minimize: a scalar.

        Args:
            x: The batch, paired or not.
            y: Its labels.
            prediction: The student's output.
            sample_weight: Weights of the samples.
            training: Whether it is a step of training.
        """
        student = self.student
        # On torch, Keras multiplies the weights by the prediction's mask in place.
        sample_weight = keras.tree.map_structure(
            lambda weight: None if weight is None else ops.copy(weight), sample_weight
        )
        if not overrides(student, "compute_loss"):
            loss = super().compute_loss(x, y, prediction, sample_weight, training)
            return replicas.without_keras_share(loss)
        kwargs: dict[str, Any] = {}
        if "training" in inspect.signature(student.compute_loss).parameters:
            kwargs["training"] = training  # Keras added this argument later.
        x = pairs.split(x).student
        with keras_private.compiled_as(student, self):
            loss = student.compute_loss(x, y, prediction, sample_weight, **kwargs)
        loss = replicas.without_keras_share(loss)
        # Empty unless there are replicas, which keep their own lists.
        for added in self._student_losses.added:
            loss = loss + ops.sum(added)
        return loss

    def compute_metrics(
        self, x: Nested, y: Nested, y_pred: Nested, sample_weight: Nested = None
    ) -> dict[str, Any]:
        """The metrics of a step; see `keras.Model.compute_metrics`."""
        if not overrides(self.student, "compute_metrics"):
            return super().compute_metrics(x, y, y_pred, sample_weight)
        x = pairs.split(x).student
        with keras_private.compiled_as(self.student, self):
            logs = self.student.compute_metrics(x, y, y_pred, sample_weight)
        # Its "loss" is not the total.
        of_student = {name: logs[name] for name in logs if name != "loss"}
        return {**self.get_metrics_result(), **of_student}

    def predict_step(self, *args: Any) -> Any:
        """One step of `predict`: the student's own, if its class has one."""
        if not overrides(self.student, "predict_step"):
            return super().predict_step(*args)
        *state, data = args
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        data = keras.utils.pack_x_y_sample_weight(pairs.split(x).student)
        if not state:
            return self.student.predict_step(data)
        # The JAX trainer passes the values of this model's variables.
        groups = self.trainable_variables, self.non_trainable_variables
        values = {
            id(variable): value
            for group, given in zip(groups, state[0], strict=True)
            for variable, value in zip(group, given, strict=True)
        }
        of_student = (
            self.student.trainable_variables,
            self.student.non_trainable_variables,
        )
        outputs, changed = self.student.predict_step(
            tuple([values[id(variable)] for variable in group] for group in of_student),
            data,
        )
        values.update(zip(map(id, of_student[1]), changed, strict=True))
        return outputs, [values[id(variable)] for variable in groups[1]]

    def export(
        self,
        filepath: FilePath,
        format: str = "tf_saved_model",  # noqa: A002  # Keras's own name.
        verbose: bool | None = None,
        input_signature: Any = None,
        **kwargs: Any,
    ) -> None:
        """Exports the student for inference: `student.export`.

        Args:
            filepath: Path of the artifact.
            format: As in `keras.Model.export`.
            verbose: As in `keras.Model.export`.
            input_signature: Shapes and types of the student's input. By default they
                are known from the student, once it has been built.
            **kwargs: As in `keras.Model.export`.

        Raises:
            ValueError: If the signature describes a pair.
        """
        if any(pairs.is_pair(x) for x in (input_signature, *_items(input_signature))):
            raise ValueError(
                "The distiller exports its student. Expected the signature of the "
                f"student's input alone. Received: {input_signature}"
            )
        trainer_state.sync(self)
        self.student.export(filepath, format, verbose, input_signature, **kwargs)


def _items(signature: Any) -> list[Any]:
    return list(signature) if isinstance(signature, (list, tuple)) else []
