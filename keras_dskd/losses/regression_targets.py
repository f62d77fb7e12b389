"""Loss: the student's numbers match the teacher's."""

from typing import Any

import keras

from keras_dskd import ops
from keras_dskd.internal.types import Config, Nested, Tensor
from keras_dskd.losses.output_loss import OutputLoss
from keras_dskd.losses.output_structures import (
    like,
    sum_over_outputs,
)
from keras_dskd.ops.checks import check_label_name, check_number
from keras_dskd.ops.labels import check_one_array
from keras_dskd.ops.sharing import detached


@keras.saving.register_keras_serializable(package="keras_dskd")
class RegressionTargets(OutputLoss):
    """Mean squared difference of the models' outputs, or its teacher-bounded form.

    Formula, with `d` values in each output:

    ```
    mean over samples of ||teacher - student||² / d
    ```

    With `bounded=True`, the loss is the student's squared error to the label, for
    samples where it is not smaller than the teacher's by a margin `m`:

    ```
    e_s = ||student - label||² / d,  e_t = ||teacher - label||² / d
    mean over samples of (e_s if e_s + m > e_t else 0)
    ```

    so that the student is not asked to copy a teacher that is worse than itself. This
    form needs labels: `keras_dskd.Distiller` passes them, Keras's Distiller does not.
    If the models have several outputs, their losses are summed. The teacher is
    detached.

    Args:
        teacher_layer_name: Teacher layer to read. `None` for the model's output.
        student_layer_name: Student layer to read. `None` for the model's output.
        bounded: Whether to take the teacher-bounded form.
        margin: `m`, at least 0, in squared units of the outputs. Only for
            `bounded=True`.
        label_name: Name of the output whose labels are meant, if the model has several
            and the layer's name does not tell. Only for `bounded=True`.

    Raises:
        ValueError: If an argument is out of range, or `margin` or `label_name` is given
            without `bounded=True`.

    Source:
        Ba and Caruana 2014 (arXiv 1312.6184); bounded: Chen et al. 2017, learning
        efficient object detection models with knowledge distillation (NeurIPS). See
        `keras_dskd.ops.regression_targets` and `keras_dskd.ops.bounded_regression`.
    """

    name = "regression_targets"
    task = "regression"

    def __init__(
        self,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        bounded: bool = False,
        margin: float = 0.0,
        label_name: str | None = None,
    ) -> None:
        check_number("margin", margin)
        check_label_name(label_name)
        if not bounded and (margin or label_name is not None):
            raise ValueError(
                "`margin` and `label_name` belong to the teacher-bounded form. "
                f"Received: margin={margin}, label_name={label_name!r}, with "
                "bounded=False. Pass bounded=True."
            )
        super().__init__(teacher_layer_name, student_layer_name)
        self.bounded = bounded
        self.margin = margin
        self.label_name = label_name
        self.reads_labels = bounded

    def compute_loss(
        self,
        teacher_outputs: Nested,
        student_outputs: Nested,
        labels: Nested = None,
        sample_weight: Tensor | None = None,
        teacher_step_mask: Nested | None = None,
        student_step_mask: Nested | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Compute the loss.

        Args:
            teacher_outputs: Tensor `(n, ..., d)` or `(n,)`, or a list, tuple or dict of
                such tensors.
            student_outputs: The same structure and shapes. `(n,)` and `(n, 1)` match.
            labels: The same structure and shapes. Only `bounded=True` reads them.
            sample_weight: Tensor `(n,)`, or weights along the first axes.
            teacher_step_mask: Bool tensor `(n, steps)`, true for the teacher's real
                steps, or the same structure of them; `None` if all are real. The loss
                is the mean over steps that are real on both sides.
            student_step_mask: The same for the student.
            **kwargs: Ignored.

        Returns:
            Scalar, float32.

        Raises:
            ValueError: If labels are missing, or structures or shapes differ.
        """

        def term(
            teacher: Tensor, student: Tensor, weight: Tensor | None, *label: Tensor
        ) -> Tensor:
            if not self.bounded:
                return ops.regression_targets(detached(teacher), student, weight)
            return ops.bounded_regression(
                detached(teacher), student, label[0], self.margin, weight
            )

        structures = [teacher_outputs, student_outputs]
        if self.bounded:
            if labels is None or not keras.tree.is_nested(student_outputs):
                check_one_array(labels)
                structures.append(labels)
            else:
                structures.append(like(student_outputs, labels))
        return sum_over_outputs(
            term,
            structures,
            sample_weight,
            (teacher_step_mask, student_step_mask),
        )

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "bounded": self.bounded,
            "margin": self.margin,
            "label_name": self.label_name,
        }
