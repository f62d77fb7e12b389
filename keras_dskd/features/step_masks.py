"""The masks that Keras's layers attach to their outputs: which steps are real.

`Embedding(mask_zero=True)` and `Masking` make them; layers with `supports_masking` pass
them on. Keras sets the mask on a tensor when the layer's `__call__` returns.
Operations such as casts make new tensors, which lack it, and
`keras.layers.MultiHeadAttention` removes it from its inputs. So a tap reads the mask
when the layer returns.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_dskd.features.layer_graph import layer_paths
from keras_dskd.internal.types import Nested, Tensor


def makes_masks(model: keras.Model) -> bool:
    """Whether a layer inside the model makes masks of steps."""
    return any(
        isinstance(layer, keras.layers.Masking) or getattr(layer, "mask_zero", False)
        for _, layer in layer_paths(model)
    )


def mask_key(name: str) -> str:
    """The key of a feature's step mask beside the feature in a dict: `"lstm (mask)"`.

    A teacher cache holds a mask under this key if Keras's layers made one.
    """
    return f"{name} (mask)"


class StepMasks:
    """The masks of the tensors that one forward pass made."""

    def __init__(self) -> None:
        # The tensors are kept, so that no new one gets the id of another.
        self._known: dict[int, tuple[Tensor, Tensor]] = {}

    def add(self, tensors: Nested, masks: Nested) -> None:
        """Remember the masks of tensors.

        Args:
            tensors: A structure of tensors.
            masks: Its masks, in order, or `None`, as `compute_mask` returns them.
        """
        flat = [] if masks is None else keras.tree.flatten(masks)
        for tensor, mask in zip(keras.tree.flatten(tensors), flat, strict=False):
            if mask is not None:
                self._known[id(tensor)] = tensor, mask

    def get(self, tensors: Sequence[Any]) -> list[Tensor | None]:
        """The mask of each tensor; `None` if it has none."""
        known = [self._known.get(id(tensor), (None, None))[1] for tensor in tensors]
        rest = [
            tensor
            for tensor, mask in zip(tensors, known, strict=True)
            if mask is None and ops.is_tensor(tensor)
        ]
        attached = iter(_read_masks(rest) if rest else ())
        return [
            next(attached) if mask is None and ops.is_tensor(tensor) else mask
            for tensor, mask in zip(tensors, known, strict=True)
        ]

    def of(self, features: Mapping[str, Nested]) -> dict[str, Nested]:
        """The masks of features.

        Args:
            features: Dict of name -> tensor, or structure of tensors, as layers
                returned them.

        Returns:
            Dict of name -> bool tensor `(n, steps)`, true for real steps, in the
            structure of the feature. Features without a mask are left out. If only some
            tensors of a structure have one, the others get a mask `(n,)` that is true.
        """
        flat = {name: keras.tree.flatten(each) for name, each in features.items()}
        masks = iter(self.get([tensor for each in flat.values() for tensor in each]))
        found: dict[str, Nested] = {}
        for name, each in flat.items():
            of_feature = [_of_steps(next(masks), tensor) for tensor in each]
            if any(mask is not None for mask in of_feature):
                filled = [
                    _all_real(tensor) if mask is None else ops.cast(mask, "bool")
                    for tensor, mask in zip(each, of_feature, strict=True)
                ]
                found[name] = keras.tree.pack_sequence_as(features[name], filled)
        return found

    def add_call(
        self, layer: keras.layers.Layer, call: "LayerCall", outputs: Nested
    ) -> None:
        """Remember the masks that Keras will attach to the outputs of a call."""
        flat = keras.tree.flatten(outputs)
        masks = self.get(flat)
        self.add(flat, masks)
        # As in `Layer.__call__`: without a mask of their own, outputs get this one.
        if None in masks and getattr(layer, "supports_masking", False):
            computed = layer.compute_mask(call.inputs, call.mask)
            flat_masks = [] if computed is None else keras.tree.flatten(computed)
            for tensor, own, mask in zip(flat, masks, flat_masks, strict=False):
                if own is None:
                    self.add(tensor, mask)


class LayerCall:
    """A layer's first argument and its mask, read before the layer runs."""

    def __init__(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self.inputs = args[0] if args else next(iter(kwargs.values()), None)
        self.mask = kwargs.get("mask")
        if self.mask is None:
            flat = keras.tree.flatten(self.inputs)
            masks = StepMasks().get(flat)
            if any(mask is not None for mask in masks):
                self.mask = keras.tree.pack_sequence_as(self.inputs, masks)


def _of_steps(mask: Tensor | None, tensor: Tensor) -> Tensor | None:
    """The mask, or `None` if the tensor has fewer axes than steps would need."""
    if mask is None or len(mask.shape) >= len(tensor.shape):
        return None
    return mask


def _all_real(tensor: Tensor) -> Tensor:
    one_per_sample = ops.reshape(tensor, (ops.shape(tensor)[0], -1))[:, 0]
    return ops.ones_like(one_per_sample, dtype="bool")


class _MaskReader(keras.layers.Layer):
    """Returns the masks of its inputs, which Keras passes to `call` as `mask`."""

    def __init__(self) -> None:
        super().__init__(name="mask_reader", autocast=False)
        self.supports_masking = True
        self.built = True

    def call(
        self, inputs: Sequence[Tensor], mask: Sequence[Tensor | None] | None = None
    ) -> Any:
        return mask

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        return None


_read_masks = _MaskReader()
