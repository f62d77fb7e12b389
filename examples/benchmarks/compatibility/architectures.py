"""Classifiers from three libraries, with random weights, for images of 64x64 pixels.

They are small, except for those of `keras.applications`, which have no small form.
"""

import importlib
from typing import NamedTuple

import keras

CLASSES = 3


class Architecture(NamedTuple):
    """A classifier to try.

    Attributes:
        library: The module that contains it.
        name: A name that is unique within the library.
        kind: Name of its class, or function, in the library's models.
        options: Arguments of the class or function.
        size: Height and width of its images.
        named: Layers for `recommended` to read, if it cannot pick them.
    """

    library: str
    name: str
    kind: str
    options: dict
    size: int = 64
    named: list | None = None


def build(architecture):
    """The classifier, which returns logits."""
    image_shape = (architecture.size, architecture.size, 3)
    if architecture.library == "keras.applications":
        return getattr(keras.applications, architecture.kind)(
            weights=None,
            input_shape=image_shape,
            classes=CLASSES,
            classifier_activation=None,
            **architecture.options,
        )
    library = importlib.import_module(architecture.library)
    shape_name = "input_shape" if architecture.library == "keras_cv" else "image_shape"
    backbone = getattr(library.models, architecture.kind)(
        **{shape_name: image_shape}, **architecture.options
    )
    if architecture.kind == "ViTBackbone":
        return library.models.ViTImageClassifier(backbone=backbone, num_classes=CLASSES)
    return library.models.ImageClassifier(
        backbone=backbone, num_classes=CLASSES, activation=None
    )


_EFFICIENT_NET = {
    "width_coefficient": 1.0,
    "depth_coefficient": 1.0,
    "stackwise_kernel_sizes": [3, 3, 3, 3],
    "stackwise_num_repeats": [1, 2, 2, 2],
    "stackwise_input_filters": [16, 8, 16, 24],
    "stackwise_output_filters": [8, 16, 24, 32],
    "stackwise_expansion_ratios": [1, 4, 4, 4],
    "stackwise_squeeze_and_excite_ratios": [0.0, 0.0, 0.25, 0.25],
    "stackwise_strides": [1, 2, 2, 2],
}
_MOBILE_NET_V3 = {
    "stackwise_expansion": [1, 4, 4, 4, 6],
    "stackwise_filters": [16, 24, 24, 40, 48],
    "stackwise_kernel_size": [3, 3, 3, 5, 5],
    "stackwise_stride": [2, 2, 1, 2, 2],
    "stackwise_se_ratio": [0.25, None, None, 0.25, 0.25],
    "stackwise_activation": ["relu", "relu", "relu", "hard_swish", "hard_swish"],
}
_MOBILE_NET = {
    "stackwise_expansion": [[16, 24], [40, 64], [64, 96]],
    "stackwise_num_blocks": [2, 2, 2],
    "stackwise_num_filters": [[16, 16], [24, 24], [32, 32]],
    "stackwise_kernel_size": [[3, 3], [5, 5], [5, 5]],
    "stackwise_num_strides": [[2, 1], [2, 1], [2, 1]],
    "stackwise_se_ratio": [[None, None], [0.25, 0.25], [0.25, 0.25]],
    "stackwise_activation": [["relu"] * 2, ["hard_swish"] * 2, ["hard_swish"] * 2],
    "stackwise_padding": [[1, 1], [2, 2], [2, 2]],
    "output_num_filters": 96,
    "depthwise_filters": 8,
    "depthwise_stride": 2,
    "depthwise_residual": False,
    "last_layer_filter": 64,
    "squeeze_and_excite": 0.5,
}
_RES_NET = {
    "stackwise_num_filters": [64, 32, 48, 64],
    "stackwise_num_blocks": [1, 1, 1, 1],
    "stackwise_num_strides": [1, 2, 2, 2],
    "input_conv_filters": [32],
    "input_conv_kernel_sizes": [7],
}
_VISION_TRANSFORMER = {"num_layers": 3, "num_heads": 2, "hidden_dim": 32}
_BLOCKS = ["transformer_block_2", "transformer_block_3"]

ARCHITECTURES = (
    Architecture("keras.applications", "ResNet50", "ResNet50", {}),
    Architecture("keras.applications", "MobileNetV3Small", "MobileNetV3Small", {}),
    Architecture("keras.applications", "EfficientNetV2B0", "EfficientNetV2B0", {}),
    Architecture("keras.applications", "ConvNeXtTiny", "ConvNeXtTiny", {}),
    Architecture("keras.applications", "DenseNet121", "DenseNet121", {}),
    Architecture("keras.applications", "Xception", "Xception", {}, size=71),
    Architecture(
        "keras_hub",
        "ResNet",
        "ResNetBackbone",
        {**_RES_NET, "block_type": "bottleneck_block"},
    ),
    Architecture(
        "keras_hub",
        "ResNetV2",
        "ResNetBackbone",
        {**_RES_NET, "block_type": "bottleneck_block", "use_pre_activation": True},
    ),
    Architecture(
        "keras_hub",
        "EfficientNetV2",
        "EfficientNetBackbone",
        {
            **{
                name: value
                for name, value in _EFFICIENT_NET.items()
                if name not in ("width_coefficient", "depth_coefficient")
            },
            "stackwise_width_coefficients": [1.0] * 4,
            "stackwise_depth_coefficients": [1.0] * 4,
            "stackwise_block_types": ["fused", "fused", "unfused", "unfused"],
        },
    ),
    Architecture("keras_hub", "MobileNet", "MobileNetBackbone", _MOBILE_NET),
    Architecture(
        "keras_hub",
        "CSPDarkNet",
        "CSPNetBackbone",
        {
            "stem_filters": 16,
            "stem_kernel_size": 3,
            "stem_strides": 1,
            "stem_padding": "same",
            "stackwise_depth": [1, 1, 1, 1],
            "stackwise_strides": [2, 2, 2, 2],
            "stackwise_num_filters": [16, 24, 32, 48],
            "block_type": "dark_block",
            "stage_type": "csp",
            "expand_ratio": [2.0, 1.0, 1.0, 1.0],
            "bottle_ratio": [0.5, 1.0, 1.0, 1.0],
            "block_ratio": [1.0, 0.5, 0.5, 0.5],
            "down_growth": True,
        },
    ),
    Architecture(
        "keras_hub",
        "DenseNet",
        "DenseNetBackbone",
        {"stackwise_num_repeats": [2, 2, 2], "growth_rate": 8},
    ),
    Architecture(
        "keras_hub",
        "VGG",
        "VGGBackbone",
        {
            "stackwise_num_repeats": [1, 1, 2, 2],
            "stackwise_num_filters": [8, 16, 24, 32],
        },
    ),
    Architecture(
        "keras_hub",
        "MiT",
        "MiTBackbone",
        {
            "layerwise_depths": [1, 1, 1, 1],
            "num_layers": 4,
            "layerwise_num_heads": [1, 1, 2, 2],
            "layerwise_sr_ratios": [8, 4, 2, 1],
            "max_drop_path_rate": 0.1,
            "layerwise_patch_sizes": [7, 3, 3, 3],
            "layerwise_strides": [4, 2, 2, 2],
            "hidden_dims": [16, 16, 32, 32],
        },
    ),
    Architecture(
        "keras_hub",
        "ViT",
        "ViTBackbone",
        {"patch_size": (16, 16), "mlp_dim": 64, **_VISION_TRANSFORMER},
        named=_BLOCKS,
    ),
    Architecture(
        "keras_cv",
        "ResNetV2",
        "ResNetV2Backbone",
        {
            "stackwise_filters": [8, 16, 24, 32],
            "stackwise_blocks": [2, 2, 2, 2],
            "stackwise_strides": [1, 2, 2, 2],
            "include_rescaling": True,
        },
    ),
    Architecture(
        "keras_cv",
        "CSPDarkNet",
        "CSPDarkNetBackbone",
        {
            "stackwise_channels": [8, 16, 24, 32],
            "stackwise_depth": [1, 1, 1, 1],
            "include_rescaling": True,
        },
    ),
    Architecture(
        "keras_cv",
        "EfficientNetV2",
        "EfficientNetV2Backbone",
        {
            **_EFFICIENT_NET,
            "stackwise_conv_types": ["fused", "fused", "unfused", "unfused"],
            "include_rescaling": True,
        },
    ),
    Architecture(
        "keras_cv",
        "MobileNetV3",
        "MobileNetV3Backbone",
        {**_MOBILE_NET_V3, "include_rescaling": True},
    ),
    Architecture(
        "keras_cv",
        "DenseNet",
        "DenseNetBackbone",
        {
            "stackwise_num_repeats": [2, 2, 2],
            "growth_rate": 8,
            "include_rescaling": True,
        },
    ),
    Architecture(
        "keras_cv",
        "MiT",
        "MiTBackbone",
        {
            "depths": [1, 1, 1, 1],
            "embedding_dims": [8, 16, 20, 32],  # Heads: 1, 2, 5, 8.
            "include_rescaling": True,
        },
    ),
)
