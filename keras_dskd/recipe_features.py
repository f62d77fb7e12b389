"""The layers that a recipe reads: as the user names them, or picked and printed."""

from collections.abc import Callable

import keras

from keras_dskd.model_features import feature_shape, head_input, stage_ends
from keras_dskd.ops.rows import channel_axis
from keras_dskd.taps import find_layer
from keras_dskd.types import Feature, FeaturePair, Role


class RecipeFeatures:
    """The features of one recipe: as the user names them, or picked and printed.

    A feature is a pair of layer names (teacher's, student's); where a recipe does
    not read the teacher's, that name is `None`.
    """

    def __init__(self, recipe: str, teacher: keras.Model, student: keras.Model) -> None:
        self.recipe = recipe
        self.models = {"teacher": teacher, "student": student}

    def output(self, named: Feature | None, reads_teacher: bool) -> FeaturePair:
        """The deep feature."""
        if named is not None:
            return self._pair(named, reads_teacher)
        return self._pick("output_features", lambda m: [head_input(m)], reads_teacher)[
            0
        ]

    def intermediate(
        self, named: Feature | list[Feature] | None, count: int, reads_teacher: bool
    ) -> list[FeaturePair]:
        """The intermediate features: those named, or `count` from the middle."""
        if named is not None:
            named = named if isinstance(named, list) else [named]
            if not named:
                raise ValueError(
                    "`intermediate_features` must name at least one feature. "
                    "Received: intermediate_features=[]"
                )
            return [self._pair(feature, reads_teacher) for feature in named]

        def middle(model: keras.Model) -> list[str]:
            ends = stage_ends(model)
            if len(ends) < count:
                raise ValueError(
                    f"{model.name!r} has {len(ends)} stage of feature maps, and "
                    f"{count} are needed."
                )
            first = (len(ends) - 1) // 2
            return ends[first : first + count]

        return self._pick("intermediate_features", middle, reads_teacher)

    def width(self, role: Role, feature: FeaturePair) -> int | None:
        """Number of channels of a feature."""
        model, name = self.models[role], feature[role == "student"] or ""
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

    def projectors(self, features: list[FeaturePair]) -> dict[str, keras.layers.Layer]:
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

    def _projector(self, feature: FeaturePair) -> keras.layers.Layer:
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

    def _pair(self, named: Feature, reads_teacher: bool) -> FeaturePair:
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

    def _pick(
        self,
        argument: str,
        pick: Callable[[keras.Model], list[str]],
        reads_teacher: bool,
    ) -> list[FeaturePair]:
        picked = {}
        for role, model in self.models.items():
            if role == "teacher" and not reads_teacher:
                continue
            try:
                picked[role] = pick(model)
            except ValueError as error:
                raise ValueError(
                    f"`{self.recipe}` cannot pick `{argument}` itself: {error} Name "
                    f'the layers: {argument}=("teacher\'s layer", "student\'s layer"), '
                    "or a list of such pairs."
                ) from error
        for role, names in picked.items():
            print(f"{self.recipe}: {argument} of the {role}: {', '.join(names)}")
        absent = [None] * len(picked["student"])
        return list(zip(picked.get("teacher", absent), picked["student"], strict=True))
