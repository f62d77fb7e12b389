"""A callback for `fit` that makes the teacher an average of the student over time."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_dskd.internal import replicas, trainer_state
from keras_dskd.internal.members import members_of
from keras_dskd.ops.checks import check_number


class EMATeacher(keras.callbacks.Callback):
    """Update the teacher after each batch: a moving average of the student's weights.

    Formula: with `θ'` the teacher's weights, `θ` the student's and `m` the momentum,

    ```
    θ' ← m θ' + (1 - m) θ
    ```

    The teacher must have the student's architecture. Usually it is a copy. The average
    includes weights that are not trained, such as the moving statistics of
    `BatchNormalization`. Integer weights are copied.

    Train on noisy or augmented inputs of the student, or on unlabeled data beside the
    labeled: with the same input on both sides the teacher has little to add. A teacher
    cache would keep the features of an older teacher, so do not use one.

    Args:
        momentum: `m`, between 0 and 1: the share that the teacher keeps. Or a callable
            of the step, an integer counted from 0, that returns it. For a teacher that
            starts far from a good student, `lambda step: min(1 - 1 / (step + 1),
            0.999)` begins with the true average, as the authors' code does.

    Raises:
        ValueError: If `momentum` is not between 0 and 1. When training begins, if the
            model has no teacher and student, or their weights differ in number or
            shape.

    Example:
    ```python
    teacher = keras.models.clone_model(student)
    teacher.set_weights(student.get_weights())
    distiller = keras_dskd.Distiller(teacher, student, keras_dskd.losses.SoftTargets())
    distiller.compile("adam", loss)
    average = keras_dskd.callbacks.EMATeacher(momentum=0.999)
    distiller.fit(radar, labels, callbacks=[average])
    ```

    With `steps_per_execution` above 1, Keras calls callbacks once per execution, and so
    the teacher is updated once per execution.

    Source:
        Tarvainen and Valpola 2017 (arXiv 1703.01780), section 2.
    """

    def __init__(self, momentum: float | Callable[[int], float] = 0.999) -> None:
        super().__init__()
        if not callable(momentum):
            check_number("momentum", momentum, most=1)
        self.momentum = momentum

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        teacher, student = (
            getattr(self.model, role, None) for role in ("teacher", "student")
        )
        if teacher is None or student is None or members_of(teacher):
            raise ValueError(
                "EMATeacher updates the one teacher of a keras_dskd.Distiller. "
                f"Received: {self.model!r}"
            )
        shapes = [
            [tuple(weight.shape) for weight in model.weights]
            for model in (teacher, student)
        ]
        if shapes[0] != shapes[1]:
            raise ValueError(
                "EMATeacher needs a teacher with the student's architecture, such as "
                "keras.models.clone_model(student). "
                f"{_difference(teacher, student, *shapes)}"
            )

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        model = self.model
        trainer_state.sync(model)
        momentum = self.momentum
        if callable(momentum):
            step = int(ops.convert_to_numpy(model._term_weights.step))
            momentum = momentum(step - 1)
            check_number("momentum", momentum, most=1)
        pairs = zip(model.teacher.weights, model.student.weights, strict=True)
        with replicas.no_gradients():
            for kept, new in pairs:
                if keras.backend.is_float_dtype(kept.dtype):
                    kept.assign(momentum * kept + (1.0 - momentum) * new)
                else:
                    kept.assign(new)


def _difference(
    teacher: keras.Model,
    student: keras.Model,
    teacher_shapes: list[Any],
    student_shapes: list[Any],
) -> str:
    if len(teacher_shapes) != len(student_shapes):
        counts = f"{len(teacher_shapes)} weights, and the student {len(student_shapes)}"
        return f"The teacher {teacher.name!r} has {counts}."
    weights = zip(teacher.weights, student.weights, strict=True)
    kept, new = next((t, s) for t, s in weights if t.shape != s.shape)
    return (
        f"The teacher's {kept.path!r} has shape {tuple(kept.shape)}, and the student's "
        f"{new.path!r} {tuple(new.shape)}."
    )
