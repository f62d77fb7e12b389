"""Output losses that fit the loss that the student is compiled with."""

import warnings
from typing import Any

import keras

from keras_dskd.distiller.loss_term import LossTerm, term_names
from keras_dskd.distiller.metrics import LossMeans
from keras_dskd.distiller.term_labels import value_of_output
from keras_dskd.features.output_kind import output_kinds
from keras_dskd.internal.tasks import TASKS, loss_name, takes_logits, task_of


class FitsTask(keras.Model):
    """A model whose distillation losses fit the loss that it is compiled with.

    A loss may have two methods for this. `validate_task(task, trained_by, student)`
    raises `ValueError` if it is for another task. `for_task(task)` returns the loss to
    use in its place.
    """

    student: keras.Model
    distillation_losses: list[keras.distillation.DistillationLoss]
    loss_terms: tuple[LossTerm, ...]
    _means: LossMeans

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "adam",
        loss: Any = None,
        metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        """Configures training; see `keras.Model.compile`.

        Raises:
            ValueError: If a distillation loss is for another task than `loss`, or if
                `loss` does not tell a recipe the task.
        """
        chosen = [self._for_task(term, loss) for term in self.loss_terms]
        super().compile(optimizer=optimizer, loss=loss, metrics=metrics, **kwargs)
        names = term_names(chosen)
        for index, (term, choice) in enumerate(
            zip(self.loss_terms, chosen, strict=True)
        ):
            if choice is not term.loss:
                term.set_loss(choice, names[index])
                self.distillation_losses[index] = choice
        self._means.rename_losses([term.name for term in self.loss_terms])

    def _for_task(
        self, term: LossTerm, loss: Any
    ) -> keras.distillation.DistillationLoss:
        compiled = value_of_output(term, loss, self.student)
        task = task_of(compiled)
        if hasattr(term.loss, "for_task"):
            if task is None:
                raise ValueError(
                    "The recipe cannot tell what the models predict: the loss "
                    f"{loss_name(compiled)} may be for any task. Pass task=..., one of "
                    f"{TASKS}, to the recipe."
                )
            _check_logits(term, compiled, self.student)
            return term.loss.for_task(task)
        if task is not None and hasattr(term.loss, "validate_task"):
            term.loss.validate_task(task, loss_name(compiled), self.student)
            _check_logits(term, compiled, self.student)
        return term.loss


def _check_logits(term: LossTerm, compiled: Any, student: keras.Model) -> None:
    """Warns if the compiled loss mistakes logits for probabilities, or vice versa.

    Keras computes a value all the same, and the student trains badly.
    """
    wants_logits = takes_logits(compiled)
    if wants_logits is None:
        return
    layer_name = getattr(term.loss, "student_layer_name", None)
    kinds = set(output_kinds(student, layer_name))
    name = loss_name(compiled)
    if wants_logits and kinds <= {"softmax", "sigmoid"}:
        warnings.warn(
            f"The student's output is the probabilities of a {kinds.pop()}, and the "
            f"loss {name}(from_logits=True) takes logits. Pass from_logits=False to "
            "the loss.",
            stacklevel=4,
        )
    elif not wants_logits and kinds == {"linear"}:
        warnings.warn(
            "The student's output is logits: its last layer has no activation. The "
            f"loss {name} takes probabilities. Pass an instance of the loss with "
            "from_logits=True.",
            stacklevel=4,
        )
