"""Keras's training loops, which keep the model's weights when a loop fails."""

import functools
from collections.abc import Callable
from typing import Any

import keras

from keras_dskd.distiller.first_predictions import check_first_predictions
from keras_dskd.distiller.loss_settings import recompiling
from keras_dskd.features.outputs import symbolic_outputs
from keras_dskd.internal import keras_private, replicas, trainer_state


class GuardedTrainer(keras_private.ReplicaShapes):
    """A model that keeps its weights when `fit`, `evaluate` or `predict` fails.

    Errors that involve several devices or processes say what to do.
    """

    distillation_losses: list[keras.distillation.DistillationLoss]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._fit_begins = False

    def make_train_function(self, force: bool = False) -> None:
        """Compiles the step; see `keras.Model.make_train_function`."""
        replicas.check_fit()
        super().make_train_function(force)
        self.train_function: Callable[..., Any] = trainer_state.keeping_state(
            self, self._with_built_optimizer(self.train_function)
        )

        def again() -> Callable[..., Any]:
            self.make_train_function(force=True)
            return self.train_function

        losses = self.distillation_losses
        self.train_function = recompiling(self.train_function, losses, again)

    def make_test_function(self, force: bool = False) -> None:
        """Compiles the step; see `keras.Model.make_test_function`."""
        super().make_test_function(force)

        def again() -> Callable[..., Any]:
            self.make_test_function(force=True)
            return self.test_function

        losses = self.distillation_losses
        self.test_function: Callable[..., Any] = recompiling(
            self.test_function, losses, again
        )

    def _with_built_optimizer(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """A step that builds the optimizer before TensorFlow traces the step.

        TensorFlow traces a step twice if the first trace creates variables. Keras
        builds the optimizer in that trace; on the other backends, before it.
        """
        if keras.backend.backend() != "tensorflow":
            return step

        @functools.wraps(step)
        def built(*args: Any) -> Any:
            # Callbacks may have changed `trainable` until now.
            if not self.optimizer.built and keras_private.is_built(self):
                self.optimizer.build(self.trainable_variables)
            return step(*args)

        return built

    def _build_metrics(self, y: Any) -> None:
        """Creates the compiled metrics before TensorFlow traces the step, too.

        Args:
            y: The labels of all samples. Otherwise the first trace creates the metrics.
        """
        prediction = symbolic_outputs(self.student, None)
        labels = keras.tree.flatten(y)
        if prediction is None or not all(hasattr(each, "shape") for each in labels):
            return
        labels = keras.tree.map_structure(
            lambda each: keras.KerasTensor(
                (None, *each.shape[1:]), keras.backend.standardize_dtype(each.dtype)
            ),
            y,
        )
        keras_private.build_metrics(self, labels, prediction)

    @functools.wraps(keras.Model.fit)
    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        x = check_first_predictions(self, x)
        if keras.backend.backend() == "tensorflow":
            self._build_metrics(args[0] if args else kwargs.get("y"))
        # Keras calls an unbuilt model on its first batch before it compiles the step.
        self._fit_begins = True
        try:
            with trainer_state.explaining_division():
                return super().fit(x, *args, **kwargs)
        finally:
            self._fit_begins = False

    @functools.wraps(keras.Model.evaluate)
    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        with trainer_state.keeping_values(self):
            return super().evaluate(*args, **kwargs)

    @functools.wraps(keras.Model.predict)
    def predict(self, *args: Any, **kwargs: Any) -> Any:
        with trainer_state.keeping_values(self):
            return super().predict(*args, **kwargs)
