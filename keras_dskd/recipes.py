"""Ready distillers: the paper's method, and the best combination measured."""

from typing import Literal

import keras

from keras_dskd.distiller.distiller import Distiller
from keras_dskd.features.choosing import RecipeFeatures, output_activations
from keras_dskd.internal.types import Feature, Weight
from keras_dskd.losses import (
    ChannelAlignment,
    ChannelIndependence,
    SoftTargets,
    SpatialUniformity,
)

# The weights below are those of the total. `Distiller` multiplies distillation terms
# by 1 - student_loss_weight.
_STUDENT_LOSS_WEIGHT = 0.5
_ALIGNMENT_WEIGHT = 4.0


def dskd(
    teacher: keras.Model,
    student: keras.Model,
    output_features: Feature | None = None,
    intermediate_features: Feature | list[Feature] | None = None,
    target: Literal["self", "teacher"] = "self",
    steps: int | None = None,
) -> Distiller:
    """Dimensional structure distillation, our reading of the paper.

    Formula:

    ```
    total = 0.5 student_loss + 0.5 soft_targets(T=4)
            + v channel_independence + 0.1 spatial_uniformity
    ```

    The student's deep features are made channel-wise independent and its
    intermediate features uniformly distributed, beside labels and soft targets. `v`
    is 0.3 with `target="self"` and 2 with `target="teacher"`.

    Args:
        teacher: A trained `keras.Model` for the strong modality.
        student: The `keras.Model` to train, for the weak modality.
        output_features: The deep feature: a layer name for both models, or a pair
            (teacher's, student's). With `None`, the input of the last `Dense` layer,
            which is printed.
        intermediate_features: The feature to spread out: as above, one or a list.
            With `None`, the end of a middle stage, which is printed.
        target: `"self"`: the student's channels are decorrelated from one another.
            `"teacher"`: from the teacher's other channels, and aligned with their
            own, which suits image pairs with thousands of samples.
        steps: Number of training steps planned (epochs times batches an epoch). The
            structure weights then rise linearly over the first 30 % of them. With
            `None` they are constant.

    Returns:
        A `keras_dskd.Distiller`, to be compiled.

    Raises:
        ValueError: If a layer is not found, or must be picked and cannot be.

    Source:
        Si, Dong, Qiang et al., arXiv 2306.15977. The full text's equations are not
        public to us: the terms are published objectives that match its abstract,
        and the weights are measured ones.
    """
    features = RecipeFeatures("dskd", teacher, student)
    deep = features.output(output_features, reads_teacher=target == "teacher")
    spread = features.intermediate(intermediate_features, 1, reads_teacher=False)
    projectors = {}
    if target == "teacher" and features.width("teacher", deep) != features.width(
        "student", deep
    ):
        projectors = features.projectors([deep])
    weights = [
        _ramp(0.3 if target == "self" else 2.0, steps),
        *(_ramp(0.1 / len(spread), steps) for _ in spread),
    ]
    return Distiller(
        teacher,
        student,
        [
            _soft_targets(teacher, student),
            ChannelIndependence(*deep, target=target),
            *(SpatialUniformity(student_layer) for _, student_layer in spread),
        ],
        distillation_loss_weights=[1.0, *weights],
        student_loss_weight=_STUDENT_LOSS_WEIGHT,
        projectors=projectors,
    )


def recommended(
    teacher: keras.Model,
    student: keras.Model,
    intermediate_features: Feature | list[Feature] | None = None,
) -> Distiller:
    """The best combination measured so far.

    Formula:

    ```
    total = 0.5 student_loss + 0.5 soft_targets(T=4)
            + 4 Σ_features channel_alignment(teacher, projector(student))
    ```

    Each intermediate feature of the student is pooled over positions, goes through
    a linear projector of its own to the teacher's width, and follows the teacher
    channel by channel. Projectors are not part of the exported student.

    The alignment is a regulariser. Over five sets of 400 to 1,000 pairs it was ahead
    of soft targets by 1.2 points of accuracy [0.4, 2.0], both trained for the number
    of epochs that was best for them on validation rows; with thousands of pairs and
    few epochs they are level. It wants about half as many epochs again as the student
    alone. `examples/benchmarks/RESULTS.md` has the tables and says how the weight was
    chosen.

    Args:
        teacher: A trained `keras.Model` for the strong modality.
        student: The `keras.Model` to train, for the weak modality.
        intermediate_features: One or a list of features, each a layer name for both
            models or a pair (teacher's, student's). With `None`, the ends of two
            middle stages, which are printed.

    Returns:
        A `keras_dskd.Distiller`, to be compiled.

    Raises:
        ValueError: If a layer is not found, or must be picked and cannot be, or the
            width of a teacher's feature cannot be known.
    """
    features = RecipeFeatures("recommended", teacher, student)
    aligned = features.intermediate(intermediate_features, 2, reads_teacher=True)
    return Distiller(
        teacher,
        student,
        [
            _soft_targets(teacher, student),
            *(ChannelAlignment(*feature) for feature in aligned),
        ],
        distillation_loss_weights=[
            1.0,
            *(_ALIGNMENT_WEIGHT / (1 - _STUDENT_LOSS_WEIGHT) for _ in aligned),
        ],
        student_loss_weight=_STUDENT_LOSS_WEIGHT,
        projectors=features.projectors(aligned),
    )


def _ramp(weight: float, steps: int | None) -> Weight:
    weight = weight / (1 - _STUDENT_LOSS_WEIGHT)
    if steps is None:
        return weight
    return keras.optimizers.schedules.PolynomialDecay(
        0.0, max(round(0.3 * steps), 1), weight, power=1.0
    )


def _soft_targets(teacher: keras.Model, student: keras.Model) -> SoftTargets:
    return SoftTargets(
        temperature=4.0,
        teacher_from_logits=output_activations(teacher) != {"softmax"},
        student_from_logits=output_activations(student) != {"softmax"},
    )
