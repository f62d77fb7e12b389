"""The layers that a recipe reads: named by the user, or picked automatically."""

from collections.abc import Callable

import keras

from keras_dskd.features import pyramid
from keras_dskd.features.feature_model import feature_shape
from keras_dskd.features.finding import find_layer
from keras_dskd.features.layer_graph import (
    articulation_points,
    graph_layers,
    layer_paths,
    output_shape,
)
from keras_dskd.internal.keras_private import producer
from keras_dskd.internal.types import Feature, FeaturePair, Role
from keras_dskd.ops.rows import channel_axis


class RecipeFeatures:
    """The features of one recipe: named by the user, or picked and printed.

    A feature is a pair of layer names, `(teacher's, student's)`. If the recipe does not
    read the teacher's feature, its name is `None`.
    """

    def __init__(self, recipe: str, teacher: keras.Model, student: keras.Model) -> None:
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

        def middle(model: keras.Model) -> list[str]:
            ends = stage_ends(model)
            if len(ends) < count:
                raise ValueError(
                    f"{count} stages of feature maps are needed, but {model.name!r} "
                    f"has {len(ends)}."
                )
            first = (len(ends) - 1) // 2
            return ends[first : first + count]

        return self._pick("intermediate_features", middle, reads_teacher)

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

    def projectors(self, features: list[FeaturePair]) -> dict[str, keras.layers.Layer]:
        """A linear projector per feature, from the student's width to the teacher's."""
        projectors = {}
        for feature in features:
            if feature[1] in projectors:
                raise ValueError(
                    f"`{self.recipe}` can read each layer of the student once. "
                    f"Received {feature[1]!r} more than once."
                )
            projectors[feature[1]] = self._projector(feature)
        return projectors

    def _projector(self, feature: FeaturePair) -> keras.layers.Layer:
        dense = keras.layers.Dense(self.width("teacher", feature))
        try:
            rank = len(feature_shape(self.models["student"], feature[1]))
        except ValueError:
            # The loss averages over positions later. A mean and a linear map commute,
            # so the result is the same, but slower.
            return dense
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
            print(f"{self.recipe}: {argument} of the {role}: {', '.join(names)}")
        absent = [None] * len(picked["student"])
        return list(zip(picked.get("teacher", absent), picked["student"], strict=True))


def output_activations(model: keras.Model, layer_name: str | None = None) -> set[str]:
    """The names of the activations that were applied last to a model's outputs.

    Args:
        model: A `keras.Model`.
        layer_name: Name of a layer, as for a `Tap`, to inspect its output instead.
            `None` means the final outputs.

    Returns:
        A set of strings such as `{"softmax"}`. It is empty for a subclassed model,
        because the layers that compute its outputs are unknown.
    """
    if layer_name:
        producers = [find_layer(model, layer_name)]
    elif isinstance(model, keras.Sequential) and model.layers:
        producers = [model.layers[-1]]
    elif getattr(model, "inputs", None):
        producers = [producer(output) for output in model.outputs]
    else:
        return set()
    found = set()
    for layer in producers:
        if isinstance(layer, keras.Model):
            found |= output_activations(layer)
        # The layers and the operations of `keras.ops` have the same names.
        elif type(layer).__name__ in ("Softmax", "Sigmoid"):
            found.add(type(layer).__name__.lower())
        else:
            name = getattr(getattr(layer, "activation", None), "__name__", None)
            found |= {name} if name else set()
    return found


def head_input(model: keras.Model) -> str:
    """The path of the layer whose output the head reads.

    The head is the last layer that is a `Dense` layer, or a convolution with a single
    output position, which is equivalent. Dropout before the head is skipped, because it
    only adds noise to statistics of the features.

    Raises:
        ValueError: If there is no such layer.
    """
    heads = [layer for _, layer in articulation_points(model) if _is_head(layer)] or [
        # In a model with several outputs, the heads are not articulation points.
        layer
        for _, layer in graph_layers(model)
        if isinstance(layer, keras.layers.Dense)
    ]
    if not heads:
        raise ValueError(f"{model.name!r} has no Dense layer whose input can be read.")
    paths = {id(layer): "/".join(path) for path, layer in layer_paths(model)}
    layer = producer(heads[-1].input)
    while isinstance(layer, keras.layers.Dropout):
        layer = producer(layer.input)
    if id(layer) not in paths or isinstance(layer, keras.layers.InputLayer):
        raise ValueError(
            f"The input of {heads[-1].name!r}, the last Dense layer of "
            f"{model.name!r}, is not the output of a layer."
        )
    return paths[id(layer)]


def stage_ends(model: keras.Model) -> list[str]:
    """The name of the last feature map of each stage, from the input to the output.

    If exactly one backbone declares pyramid levels, these are its levels. Otherwise
    they are the paths of the layers that end the stages. See
    `keras_dskd.features.pyramid`.

    Raises:
        ValueError: If the model has no feature maps of known size.
    """
    backbones = pyramid.backbones(model)
    if len(backbones) == 1:
        path, backbone = backbones[0]
        return ["/".join([*path, level]) for level in pyramid.levels(backbone)]
    return [stage.path for stage in pyramid.stages(model)]


def _is_head(layer: keras.Operation) -> bool:
    if isinstance(layer, keras.layers.Dense):
        return True
    convolutions = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
    shape = output_shape(layer) if isinstance(layer, convolutions) else None
    return shape is not None and pyramid.is_single_position(shape)
