"""Layer: regularize a feature toward uniformity on the unit sphere."""

from typing import Any

import keras

from keras_dskd import ops
from keras_dskd.internal import replicas
from keras_dskd.internal.types import Config, RowsKind, Shape, Tensor
from keras_dskd.ops.checks import check_number, check_rows_kind, check_temperature
from keras_dskd.ops.step_masks import row_mask


@keras.saving.register_keras_serializable(package="keras_dskd_layers")
class SpatialUniformity(keras.layers.Layer):
    """Identity layer that rewards uniformity on the unit sphere.

    Formula: with `u` the rows scaled to unit length,

    ```
    weight log mean_{i<j} exp(-t ||u_i - u_j||²)
    ```

    Active only in training. It works in any Keras model, with or without a teacher.

    Args:
        weight: Weight of the term in the model's loss, at least 0.
        temperature: `t`, between 1e-6 and 1e6. Defaults to 2, as in the source.
        rows: What becomes a row: `"pooled"`, `"flattened"` or `"positions"`. See
            `keras_dskd.ops.rows`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If an argument is out of range, or if a training batch has fewer
            than two rows.

    Input shape:
        `(n, c)` or `(n, ..., c)`. Steps that a Keras mask `(n, steps)` leaves out do
        not count.

    Output shape:
        Same as the input, which is returned unchanged.

    Example:
    ```python
    x = keras.layers.Conv2D(32, 3, activation="relu")(x)
    x = keras_dskd.layers.SpatialUniformity(weight=0.1)(x)
    ```

    Source:
        Wang and Isola 2020 (arXiv 2005.10242), L_uniform.
    """

    def __init__(
        self,
        weight: float,
        temperature: float = 2.0,
        rows: RowsKind = "pooled",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_number("weight", weight)
        check_temperature(temperature)
        check_rows_kind(rows)
        self.weight = weight
        self.temperature = temperature
        self.rows = rows
        self.supports_masking = True

    def build(self, input_shape: Shape) -> None:
        self.built = True

    def call(
        self,
        inputs: Tensor,
        training: bool | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        if training:
            uniformity = ops.spatial_uniformity(
                ops.rows(inputs, self.rows, step_mask=mask),
                self.temperature,
                replicas.current(),
                row_mask(inputs, mask, self.rows),
            )
            self.add_loss(self.weight * uniformity)
        return inputs

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> Config:
        config = super().get_config()
        config.update(
            {
                "weight": self.weight,
                "temperature": self.temperature,
                "rows": self.rows,
            }
        )
        return config
