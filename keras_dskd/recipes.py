"""Ready-made distillers: the method of the paper, and the combination that scored best.

Each recipe returns a plain `Distiller` with losses, weights and projectors filled in.
"""

import numbers
from typing import Literal

import keras

from keras_dskd.distiller.distiller import Distiller
from keras_dskd.features.choosing import RecipeFeatures
from keras_dskd.features.heads import heads
from keras_dskd.internal.tasks import Task, check_task
from keras_dskd.internal.types import Feature, Temperature, Weight
from keras_dskd.losses import (
    ChannelAlignment,
    ChannelIndependence,
    SpatialUniformity,
)
from keras_dskd.losses.output_targets import output_loss

# The weights in this file and in the docstrings' formulas are weights in the total.
# `Distiller` also multiplies each distillation loss by 1 - student_loss_weight.
_STUDENT_LOSS_WEIGHT = 0.5
_ALIGNMENT_WEIGHT = 4.0
# Steps over which a weight rises: the least, and those of a training of unknown length.
_LEAST_RISE, _RISE = 100, 500


def dskd(
    teacher: keras.Model,
    student: keras.Model,
    output_features: Feature | None = None,
    intermediate_features: Feature | list[Feature] | None = None,
    target: Literal["self", "teacher"] = "self",
    steps: int | None = None,
    task: Task | None = None,
    temperature: Temperature = "auto",
) -> Distiller:
    """Dimensional-structure distillation: our reading of the paper.

    It trains the student with its own loss and three distillation losses:
    `SoftTargets`, `ChannelIndependence` of the deep features, and `SpatialUniformity`
    of the intermediate features, pooled over positions.

    Formula:

    ```
    total = 0.5 student_loss + 0.5 soft_targets(T)
            + v channel_independence + 0.1 spatial_uniformity
    ```

    `v` is 0.3 with `target="self"` and 2 with `target="teacher"`. With several
    intermediate features, the weight 0.1 is divided equally among them.

    With `target="teacher"` and features of different widths, the student's deep feature
    first passes a linear projector, which is not part of the exported student.

    Args:
        teacher: A trained `keras.Model` for the strong modality.
        student: The `keras.Model` to train, for the weak modality.
        output_features: The deep feature: a layer name for both models, or a pair
            `(teacher's, student's)`. With `None`, the recipe picks the input of the
            last `Dense` layer and prints its name.
        intermediate_features: One intermediate feature or a list of them, named in the
            same way. With `None`, the recipe picks the end of a middle stage and prints
            its name.
        target: `"self"` decorrelates the student's channels from one another.
            `"teacher"` aligns each student channel with the same channel of the
            teacher and decorrelates it from the teacher's other channels, which suits
            image pairs with thousands of samples.
        steps: Planned number of training steps (epochs times batches per epoch). The
            weights of `ChannelIndependence` and `SpatialUniformity` rise linearly from
            0 over the first 30 % of the steps, but over at least 100 steps; with
            `None`, over 500 steps.
        task: What the models predict: `"multiclass"` (classes that exclude one another:
            `SoftTargets`), `"binary"` (one sigmoid, or several independent labels:
            `BinarySoftTargets`) or `"regression"` (`RegressionTargets`). With `None`,
            softmaxes and sigmoids in the models decide, or else the loss that `compile`
            gets. With several outputs, each has its own loss.
        temperature: Temperature of the soft targets: a number, a schedule of steps, or
            `"auto"`. `"auto"` is 4 for labels that do not exclude one another, and
            measured in each batch for classes that do: between 2 and 4, the surer the
            teacher, the higher (`keras_dskd.ops.auto_temperature`). A regression has no
            temperature.

    Returns:
        A `keras_dskd.Distiller`. Compile it before training.

    Raises:
        ValueError: If a named layer is not found, no layer can be picked, or the
            models' outputs contradict each other or the task.

    Source:
        Si, Dong, Qiang et al., arXiv 2306.15977. We have no access to the equations of
        the full text. The losses are published objectives that match its abstract, and
        we chose the weights by measurement.
    """
    features = RecipeFeatures("dskd", teacher, student)
    deep = features.output(output_features, reads_teacher=target == "teacher")
    spread = features.intermediate(intermediate_features, 1, reads_teacher=False)
    projectors = {}
    if target == "teacher" and features.width("teacher", deep) != features.width(
        "student", deep
    ):
        projectors = features.projectors([deep])
    outputs = output_losses(teacher, student, task, temperature)
    weights = [
        *(1.0 for _ in outputs),
        _rising(0.3 if target == "self" else 2.0, steps),
        *(_rising(0.1 / len(spread), steps) for _ in spread),
    ]
    return Distiller(
        teacher,
        student,
        [
            *outputs,
            ChannelIndependence(*deep, target=target),
            *(SpatialUniformity(student_layer) for _, student_layer in spread),
        ],
        distillation_loss_weights=weights,
        student_loss_weight=_STUDENT_LOSS_WEIGHT,
        projectors=projectors,
    )


def recommended(
    teacher: keras.Model,
    student: keras.Model,
    intermediate_features: Feature | list[Feature] | None = None,
    task: Task | None = None,
    steps: int | None = None,
    temperature: Temperature = "auto",
) -> Distiller:
    """Soft targets and channel alignment: the best combination that we have measured.

    It trains the student with its own loss, `SoftTargets`, and `ChannelAlignment` of
    each intermediate feature.

    Formula:

    ```
    total = 0.5 student_loss + 0.5 soft_targets(T)
            + 4 Σ_features channel_alignment(teacher, projector(student))
    ```

    Each intermediate feature of the student is pooled over positions and passes its own
    linear projector to the teacher's width. Each projected channel then follows the
    teacher's channel. The projectors are trained, and are not part of the exported
    student. If the student predicts at each position, as in segmentation, the features
    are compared position by position, too.

    The weights of the alignment rise linearly from 0, because the projectors need steps
    to learn. A training of fewer than 100 steps does not reach the full weights.

    The alignment acts as a regularizer. On five data sets of 400 to 1,000 pairs, it was
    more accurate than soft targets alone by 1.2 points (95 % interval 0.4 to 2.0), each
    trained for its best number of epochs on validation rows, at temperature 4 and with
    constant weights. With thousands of pairs and few epochs, the difference is within
    noise. Train for about 1.5 times as many epochs as for the student alone.
    `examples/benchmarks/RESULTS.md` has the results, and `tables/tried.md` beside it
    explains how the weight was chosen.

    Args:
        teacher: A trained `keras.Model` for the strong modality.
        student: The `keras.Model` to train, for the weak modality.
        intermediate_features: One feature or a list of features. Each is a layer name
            for both models, or a pair `(teacher's, student's)`. With `None`, the recipe
            picks the ends of two middle stages and prints their names.
        task: What the models predict: `"multiclass"` (classes that exclude one another:
            `SoftTargets`), `"binary"` (one sigmoid, or several independent labels:
            `BinarySoftTargets`) or `"regression"` (`RegressionTargets`). With `None`,
            softmaxes and sigmoids in the models decide, or else the loss that `compile`
            gets. With several outputs, each has its own loss.
        steps: Planned number of training steps (epochs times batches per epoch). The
            weights rise over the first 30 % of them, but over at least 100 steps; with
            `None`, over 500 steps.
        temperature: Temperature of the soft targets: a number, a schedule of steps, or
            `"auto"`. `"auto"` is 4 for labels that do not exclude one another, and
            measured in each batch for classes that do: between 2 and 4, the surer the
            teacher, the higher (`keras_dskd.ops.auto_temperature`). A regression has no
            temperature.

    Returns:
        A `keras_dskd.Distiller`. Compile it before training.

    Raises:
        ValueError: If a named layer is not found, no layer can be picked, the width of
            a teacher's feature is unknown, or the models' outputs contradict each other
            or the task.
    """
    features = RecipeFeatures("recommended", teacher, student)
    aligned = features.intermediate(intermediate_features, 2, reads_teacher=True)
    rows = features.rows(aligned)
    outputs = output_losses(teacher, student, task, temperature)
    return Distiller(
        teacher,
        student,
        [
            *outputs,
            *(ChannelAlignment(*feature, rows=rows) for feature in aligned),
        ],
        distillation_loss_weights=[
            *(1.0 for _ in outputs),
            *(_rising(_ALIGNMENT_WEIGHT, steps) for _ in aligned),
        ],
        student_loss_weight=_STUDENT_LOSS_WEIGHT,
        projectors=features.projectors(aligned, rows),
    )


def _rising(weight: float, steps: int | None) -> Weight:
    """A weight in the total that rises linearly from 0, as the distiller takes it."""
    if steps is not None and not (isinstance(steps, numbers.Real) and steps >= 0):
        raise ValueError(
            "`steps` must be the number of training steps, or None. Received: "
            f"steps={steps!r}"
        )
    rise = _RISE if steps is None else max(round(0.3 * steps), _LEAST_RISE)
    return keras.optimizers.schedules.PolynomialDecay(
        0.0, rise, weight / (1 - _STUDENT_LOSS_WEIGHT), power=1.0
    )


def output_losses(
    teacher: keras.Model,
    student: keras.Model,
    task: Task | None,
    temperature: Temperature = "auto",
) -> list[keras.distillation.DistillationLoss]:
    """One loss for each pair of outputs."""
    check_task(task)
    return [
        output_loss(teacher, student, task, layers, temperature)
        for layers in heads(teacher, student)
    ]
