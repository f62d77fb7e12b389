"""One distillation loss: its name, its weight, and the layers that it reads."""

import inspect
import itertools
import re
from collections.abc import Sequence

import keras

from keras_dskd.features.layer_graph import layer_ids
from keras_dskd.features.taps import OUTPUT
from keras_dskd.internal.metric_names import TOTALS
from keras_dskd.internal.types import Role, Weight


class LossTerm:
    """A distillation loss, with its name, its weight and the layers it reads.

    The loss may come from this package, from Keras or from the user. Two attributes of
    its class declare what it needs: `reads_teacher = False` if it ignores the teacher,
    `pools_teacher = True` if it only uses the mean of the teacher's feature over
    positions. Inherited declarations are ignored, because a subclass may read more than
    its parent.

    Args:
        loss: A `keras.distillation.DistillationLoss`.
        name: Name of its metric.
        teacher: The teacher. Its layers are not trained, even if a loss holds them.
        weight: A number, or a function of the training step.

    Attributes:
        teacher_name: Name of the teacher's layer that the loss reads, `OUTPUT` for the
            final output, or `None` if the loss ignores the teacher.
        student_name: Name of the student's layer, or `OUTPUT`.
        pools_teacher: Whether a pooled teacher feature is enough.
        arguments: Names of the arguments of the loss's `compute_loss`.
        layers: Layers to train that the loss holds as attributes.
    """

    def __init__(
        self,
        loss: keras.distillation.DistillationLoss,
        name: str,
        teacher: keras.Model,
        weight: Weight = 1.0,
    ) -> None:
        self.weight = weight
        self.layers = _layers_in(loss, teacher)
        self.set_loss(loss, name)

    def set_loss(self, loss: keras.distillation.DistillationLoss, name: str) -> None:
        """Sets the loss and its name."""
        declared = vars(type(loss))
        self.loss = loss
        self.name = name
        self.teacher_name: str | None = None
        if "reads_teacher" not in declared or loss.reads_teacher:
            self.teacher_name = getattr(loss, "teacher_layer_name", None) or OUTPUT
        self.student_name: str = getattr(loss, "student_layer_name", None) or OUTPUT
        self.pools_teacher = "pools_teacher" in declared and bool(loss.pools_teacher)
        self.arguments = frozenset(inspect.signature(loss.compute_loss).parameters)

    def layer_name(self, role: Role) -> str | None:
        """Name of the layer that the loss reads in one of the models."""
        return self.teacher_name if role == "teacher" else self.student_name


def make_terms(
    losses: Sequence[keras.distillation.DistillationLoss], teacher: keras.Model
) -> tuple[LossTerm, ...]:
    """A `LossTerm` per loss."""
    return tuple(
        LossTerm(loss, name, teacher)
        for loss, name in zip(losses, term_names(losses), strict=True)
    )


def term_names(losses: Sequence[keras.distillation.DistillationLoss]) -> list[str]:
    """The names of the losses' metrics.

    It is the loss's `name`, or else the name of its class in snake case. If that name
    is taken, a number is appended.
    """
    taken = list(TOTALS)
    for loss in losses:
        name = getattr(loss, "name", None) or _snake_case(type(loss).__name__)
        numbered = (f"{name}_{number}" for number in itertools.count(1))
        candidates = itertools.chain([name], numbered)
        taken.append(next(name for name in candidates if name not in taken))
    return taken[len(TOTALS) :]


def names_read(terms: Sequence[LossTerm], role: Role) -> list[str]:
    """Names of the layers that the losses read in a model, without repeats."""
    read = dict.fromkeys(term.layer_name(role) for term in terms)
    return [name for name in read if name is not None]


def pooled_names(terms: Sequence[LossTerm]) -> list[str]:
    """Names of the teacher's layers that are read only by losses that pool them."""
    return [
        name
        for name in names_read(terms, "teacher")
        if name != OUTPUT
        and all(term.pools_teacher for term in terms if term.teacher_name == name)
    ]


def _layers_in(
    loss: keras.distillation.DistillationLoss, teacher: keras.Model
) -> list[keras.layers.Layer]:
    of_teacher = layer_ids(teacher)
    values = keras.tree.flatten(list(vars(loss).values()))
    found = {
        id(value): value
        for value in values
        if isinstance(value, keras.layers.Layer) and id(value) not in of_teacher
    }
    return list(found.values())


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
