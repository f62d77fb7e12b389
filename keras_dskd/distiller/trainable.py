"""The variables that a distiller trains: all but the teacher's."""

from collections.abc import Iterable

import keras

from keras_dskd.internal import keras_private


class TrainsStudent(keras.Model):
    """A model that trains its student and auxiliary layers, never its teacher.

    Keras selects trainable variables by each variable's own flag. The teacher's flags
    belong to the user, so its variables are left out here instead.
    """

    teacher: keras.Model
    student: keras.Model
    projectors: dict[str, keras.layers.Layer]
    _loss_layers: list[keras.layers.Layer]
    _term_weights: keras.layers.Layer
    _seed_states: keras.layers.Layer
    _shares_with_teacher: bool
    _is_teacher_idle: bool

    @property
    def _auxiliary_layers(self) -> tuple[keras.layers.Layer, ...]:
        """Projectors, and layers inside losses."""
        return (*self.projectors.values(), *self._loss_layers)

    @property
    def trainable(self) -> bool:
        """Whether the student's side is trained. The teacher never is."""
        return keras_private.trainable_flag(self)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        keras_private.set_trainable_flag(self, bool(value))
        for layer in (self.student, *self._auxiliary_layers):
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
        """All other variables, including the teacher's: state of the step.

        While `evaluate` or `predict` runs the student alone, the teacher's are not:
        see `IdlesTeacher`.
        """
        others = _without(self.variables, self.trainable_variables)
        if not self._is_teacher_idle:
            return others
        used = [self.student, *self._auxiliary_layers]
        shared = [variable for layer in used for variable in layer.variables]
        return _without(others, _without(self.teacher.variables, shared))

    @property
    def non_trainable_weights(self) -> list[keras.Variable]:
        """All other weights, including the teacher's."""
        return _without(self.weights, self.trainable_weights)

    def _trained(self, kind: str) -> list[keras.Variable]:
        if not self.trainable:
            return []
        parts = [self.student, *self._auxiliary_layers]
        others = [self.teacher, self._term_weights, self._seed_states]
        known = {id(part) for part in (*parts, *others)}
        if (
            known.issuperset(map(id, self.layers))
            and not keras_private.has_own_trainable_variables(self)
            and not self._shares_with_teacher
        ):
            # The torch trainer asks in every step, so do not walk the teacher's layers.
            found = [variable for part in parts for variable in getattr(part, kind)]
            return list({id(variable): variable for variable in found}.values())
        # A subclass has layers or weights of its own, or a projector shares weights
        # with the teacher. Weights that teacher and student share are trained.
        of_teacher = _without(self.teacher.weights, self.student.weights)
        return _without(getattr(super(), kind), of_teacher)


def _without(
    variables: Iterable[keras.Variable], others: Iterable[keras.Variable]
) -> list[keras.Variable]:
    excluded = {id(variable) for variable in others}
    return [variable for variable in variables if id(variable) not in excluded]
