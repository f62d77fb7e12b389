"""Layer: regularize a feature toward decorrelated channels."""

from typing import Any

import keras

from keras_dskd import ops
from keras_dskd.internal import replicas
from keras_dskd.internal.types import Config, Shape, Tensor
from keras_dskd.ops.checks import check_epsilon, check_number
from keras_dskd.ops.step_masks import row_mask


@keras.saving.register_keras_serializable(package="keras_dskd_layers")
class ChannelIndependence(keras.layers.Layer):
    """Identity layer that penalizes correlated channels.

    Formula: with `R` the correlation matrix of the pooled features over the batch,

    ```
    weight Σ_{i≠j} R_ij² / (c (c - 1))
    ```

    Active only in training. It works in any Keras model, with or without a teacher.

    Args:
        weight: Weight of the penalty in the model's loss, at least 0.
        epsilon: Positive number, added to each variance.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If an argument is out of range, or if a training batch has fewer
            than two samples.

    Input shape:
        `(n, c)` or `(n, ..., c)`. Steps that a Keras mask `(n, steps)` leaves out do
        not count.

    Output shape:
        Same as the input, which is returned unchanged.

    Example:
    ```python
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras_dskd.layers.ChannelIndependence(weight=0.3)(x)
    outputs = keras.layers.Dense(10)(x)
    ```

    Source:
        `keras_dskd.ops.off_diagonal_energy`. It is not an `activity_regularizer`,
        because Keras divides those by the batch size, which is wrong for a batch
        statistic.
    """

    def __init__(self, weight: float, epsilon: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_number("weight", weight)
        check_epsilon(epsilon)
        self.weight = weight
        self.epsilon = epsilon
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
            energy = ops.off_diagonal_energy(
                ops.rows(inputs, step_mask=mask),
                self.epsilon,
                replicas.current(),
                row_mask(inputs, mask),
            )
            self.add_loss(self.weight * energy)
        return inputs

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> Config:
        config = super().get_config()
        config.update({"weight": self.weight, "epsilon": self.epsilon})
        return config
