"""The layers that a recipe reads: named by the user, or picked automatically."""

from collections.abc import Callable

import keras

from keras_dskd.features.feature_model import feature_shape
from keras_dskd.features.finding import find_layer
from keras_dskd.features.landmarks import head_input, middle_layers
from keras_dskd.features.outputs import symbolic_outputs
from keras_dskd.internal.types import Feature, FeaturePair, Role, RowsKind
from keras_dskd.ops.grids import grid, have_one_grid
from keras_dskd.ops.rows import channel_axis


class RecipeFeatures:
    """The features of one recipe: named by the user, or picked and printed.

    A feature is a pair of layer names, `(teacher's, student's)`. If the recipe does not
    read the teacher's feature, its name is `None`.
    """

    def __init__(self, recipe: str, teacher: keras.Model, student: keras.Model) -> None:
        if not isinstance(teacher, keras.Model):
            names = f" of {list(teacher)}" if isinstance(teacher, dict) else ""
            raise ValueError(
                f"`{recipe}` takes one teacher, a keras.Model, because it picks the "
                f"teacher's layers. Received: {type(teacher).__name__}{names}. Build a "
                "`Distiller`, whose losses name what they read."
            )
        self.recipe = recipe
        self.models = {"teacher": teacher, "student": student}

    def output(self, named: Feature | None, reads_teacher: bool) -> FeaturePair:
        """The named deep feature, or the input of the head."""
        if named is not None:
            return self._pair(named, reads_teacher)
        return self._pick("output_features", lambda m: [head_input(m)], reads_teacher)[
            0
        ]

    def intermediate(
        self, named: Feature | list[Feature] | None, count: int, reads_teacher: bool
    ) -> list[FeaturePair]:
        """The named intermediate features, or the ends of `count` middle stages."""
        if named is not None:
            named = named if isinstance(named, list) else [named]
            if not named:
                raise ValueError(
                    "`intermediate_features` must name at least one feature. "
                    "Received: intermediate_features=[]"
                )
            return [self._pair(feature, reads_teacher) for feature in named]

        return self._pick(
            "intermediate_features",
            lambda model: middle_layers(model, count),
            reads_teacher,
        )

    def width(self, role: Role, feature: FeaturePair) -> int | None:
        """The number of channels of a feature. `None` if it is not fixed."""
        model, name = self.models[role], feature[role == "student"] or ""
        find_layer(model, name)
        try:
            shape = feature_shape(model, name)
        except ValueError as error:
            raise ValueError(
                f"`{self.recipe}` needs the width of the {role}'s feature {name!r} "
                f"for its projector. {error} Or build a `Distiller` and pass the "
                "projectors yourself."
            ) from error
        return shape[channel_axis(len(shape))]

    def rows(self, features: list[FeaturePair]) -> RowsKind:
        """What an alignment of features compares: their means, or each position.

        Each position, if the student predicts at each position, as in segmentation.
        Both modalities then share the labels of each position, so that their feature
        maps are registered.
        """
        outputs = keras.tree.flatten(symbolic_outputs(self.models["student"], None))
        if None in outputs:
            return "pooled"
        ranks = {len(output.shape) for output in outputs}
        for feature in features:
            try:
                shapes = [
                    feature_shape(model, name or "")
                    for model, name in zip(self.models.values(), feature, strict=True)
                ]
            except ValueError:
                return "pooled"
            if ranks != {len(shapes[1])} or not have_one_grid(*map(grid, shapes)):
                return "pooled"
        return "positions"

    def projectors(
        self, features: list[FeaturePair], rows: RowsKind = "pooled"
    ) -> dict[str, keras.layers.Layer]:
        """A linear projector per feature, from the student's width to the teacher's.

        Args:
            features: The features.
            rows: What the loss compares: means over positions, or each position.

        Raises:
            ValueError: If a student's feature occurs twice, or a width is unknown.
        """
        projectors = {}
        for feature in features:
            if feature[1] in projectors:
                raise ValueError(
                    f"`{self.recipe}` can read each layer of the student once. "
                    f"Received {feature[1]!r} more than once."
                )
            projectors[feature[1]] = self._projector(feature, rows)
        return projectors

    def _projector(self, feature: FeaturePair, rows: RowsKind) -> keras.layers.Layer:
        dense = keras.layers.Dense(self.width("teacher", feature))
        try:
            rank = len(feature_shape(self.models["student"], feature[1]))
        except ValueError:
            # The loss averages over positions later. A mean and a linear map commute,
            # so the result is the same, but slower.
            return dense
        if rows == "positions":
            convolution = {4: keras.layers.Conv2D, 5: keras.layers.Conv3D}.get(rank)
            return convolution(dense.units, 1) if convolution else dense
        pooling = {
            3: keras.layers.GlobalAveragePooling1D,
            4: keras.layers.GlobalAveragePooling2D,
            5: keras.layers.GlobalAveragePooling3D,
        }
        # `GlobalAveragePooling1D` follows the global image data format, but features of
        # rank 3 are always `(n, length, c)`.
        options = {"data_format": "channels_last"} if rank == 3 else {}
        if rank not in pooling:
            return dense
        return keras.Sequential([pooling[rank](**options), dense])

    def _pair(self, named: Feature, reads_teacher: bool) -> FeaturePair:
        names = (named, named) if isinstance(named, str) else tuple(named)
        if len(names) != 2 or not all(isinstance(name, str) for name in names):
            raise ValueError(
                "A feature must be a layer name for both models, or a pair (teacher's, "
                f"student's). Received: {named!r}"
            )
        for model, name in zip(self.models.values(), names, strict=True):
            if reads_teacher or model is self.models["student"]:
                find_layer(model, name)
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
                    f"`{self.recipe}` cannot pick `{argument}` automatically: {error} "
                    f'Name the layers: {argument}=("teacher\'s layer", '
                    '"student\'s layer"), or a list of such pairs.'
                ) from error
        for role, names in picked.items():
            shown = (_with_shape(self.models[role], name) for name in names)
            print(f"{self.recipe}: {argument} of the {role}: {', '.join(shown)}")
        absent = [None] * len(picked["student"])
        return list(zip(picked.get("teacher", absent), picked["student"], strict=True))


def _with_shape(model: keras.Model, name: str) -> str:
    """A layer's name and, if the graph shows it, the shape of one sample's feature."""
    output = symbolic_outputs(model, name)
    if not isinstance(output, keras.KerasTensor):
        return name
    sizes = ("?" if size is None else str(size) for size in output.shape[1:])
    return f"{name} ({'x'.join(sizes)})"
