"""Ready distillers: the paper's method, and the best combination measured."""

import keras

from keras_dskd.distiller import Distiller
from keras_dskd.losses import (
    ChannelAlignment,
    ChannelIndependence,
    SoftTargets,
    SpatialUniformity,
)
from keras_dskd.model_features import (
    feature_shape,
    head_input,
    output_activations,
    stage_ends,
)
from keras_dskd.ops.rows import channel_axis
from keras_dskd.taps import find_layer

# The weights below are those of the total. `Distiller` multiplies distillation terms
# by 1 - student_loss_weight.
_STUDENT_LOSS_WEIGHT = 0.5
_ALIGNMENT_WEIGHT = 4.0


def dskd(
    teacher,
    student,
    output_features=None,
    intermediate_features=None,
    target="self",
    steps=None,
):
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
    features = _Features("dskd", teacher, student)
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


def recommended(teacher, student, intermediate_features=None):
    """The best combination measured so far.

    Formula:

    ```
    total = 0.5 student_loss + 0.5 soft_targets(T=4)
            + 4 Σ_features channel_alignment(teacher, projector(student))
    ```

    Each intermediate feature of the student is pooled over positions, goes through
    a linear projector of its own to the teacher's width, and follows the teacher
    channel by channel. Projectors are not part of the exported student.

    The alignment is a regulariser: with about 1,000 pairs it was ahead of soft
    targets on all image pairs measured, and level with them where thousands of pairs
    are seen for few epochs. `examples/benchmarks/RESULTS.md` has the tables and says
    how the weight was chosen.

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
    features = _Features("recommended", teacher, student)
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


class _Features:
    """The features of one recipe: as the user names them, or picked and printed.

    A feature is a pair of layer names (teacher's, student's); where a recipe does
    not read the teacher's, that name is `None`.
    """

    def __init__(self, recipe, teacher, student):
        self.recipe = recipe
        self.models = {"teacher": teacher, "student": student}

    def output(self, named, reads_teacher):
        """The deep feature."""
        if named is not None:
            return self._pair(named, reads_teacher)
        return self._pick("output_features", lambda m: [head_input(m)], reads_teacher)[
            0
        ]

    def intermediate(self, named, count, reads_teacher):
        """The intermediate features: those named, or `count` from the middle."""
        if named is not None:
            named = named if isinstance(named, list) else [named]
            if not named:
                raise ValueError(
                    "`intermediate_features` must name at least one feature. "
                    "Received: intermediate_features=[]"
                )
            return [self._pair(feature, reads_teacher) for feature in named]

        def middle(model):
            ends = stage_ends(model)
            if len(ends) < count:
                raise ValueError(
                    f"{model.name!r} has {len(ends)} stage of feature maps, and "
                    f"{count} are needed."
                )
            first = (len(ends) - 1) // 2
            return ends[first : first + count]

        return self._pick("intermediate_features", middle, reads_teacher)

    def width(self, role, feature):
        """Number of channels of a feature."""
        model, name = self.models[role], feature[role == "student"]
        find_layer(model, name.partition("#")[0])
        try:
            shape = feature_shape(model, name)
        except ValueError as error:
            raise ValueError(
                f"`{self.recipe}` needs the width of the {role}'s feature {name!r} "
                f"for its projector. {error} Build a `Distiller` with projectors of "
                "your own."
            ) from error
        return shape[channel_axis(len(shape))]

    def projectors(self, features):
        """A linear projector a feature, from the student's width to the teacher's."""
        projectors = {}
        for feature in features:
            if feature[1] in projectors:
                raise ValueError(
                    f"`{self.recipe}` takes each layer of the student once. Received "
                    f"{feature[1]!r} more than once."
                )
            projectors[feature[1]] = self._projector(feature)
        return projectors

    def _projector(self, feature):
        dense = keras.layers.Dense(self.width("teacher", feature))
        try:
            rank = len(feature_shape(self.models["student"], feature[1]))
        except ValueError:
            return dense  # A mean and a linear map commute: the same, but slower.
        pooling = {
            3: keras.layers.GlobalAveragePooling1D,
            4: keras.layers.GlobalAveragePooling2D,
            5: keras.layers.GlobalAveragePooling3D,
        }
        # GlobalAveragePooling1D goes by the image format, where rows do not.
        options = {"data_format": "channels_last"} if rank == 3 else {}
        if rank not in pooling:
            return dense
        return keras.Sequential([pooling[rank](**options), dense])

    def _pair(self, named, reads_teacher):
        names = (named, named) if isinstance(named, str) else tuple(named)
        if len(names) != 2 or not all(isinstance(name, str) for name in names):
            raise ValueError(
                "A feature is a layer name for both models, or a pair (teacher's, "
                f"student's). Received: {named!r}"
            )
        for model, name in zip(self.models.values(), names, strict=True):
            if reads_teacher or model is self.models["student"]:
                find_layer(model, name.partition("#")[0])
        return names if reads_teacher else (None, names[1])

    def _pick(self, argument, pick, reads_teacher):
        picked = {}
        for role, model in self.models.items():
            if role == "teacher" and not reads_teacher:
                continue
            try:
                picked[role] = pick(model)
            except ValueError as error:
                raise ValueError(
                    f"`{self.recipe}` cannot pick `{argument}` itself: {error} Name "
                    f"the layers: {argument}=..."
                ) from error
        for role, names in picked.items():
            print(f"{self.recipe}: {argument} of the {role}: {', '.join(names)}")
        absent = [None] * len(picked["student"])
        return list(zip(picked.get("teacher", absent), picked["student"], strict=True))


def _ramp(weight, steps):
    weight = weight / (1 - _STUDENT_LOSS_WEIGHT)
    if steps is None:
        return weight
    return keras.optimizers.schedules.PolynomialDecay(
        0.0, max(round(0.3 * steps), 1), weight, power=1.0
    )


def _soft_targets(teacher, student):
    return SoftTargets(
        temperature=4.0,
        teacher_from_logits=output_activations(teacher) != {"softmax"},
        student_from_logits=output_activations(student) != {"softmax"},
    )
