"""Names of types in signatures."""

import os
from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeAlias

#: A tensor of any backend, or a NumPy array. It is `Any` because the backends share no
#: tensor type and Keras ships no annotations.
Tensor: TypeAlias = Any


class Replicas(Protocol):
    """Sums and gathers over replicas; see `keras_dskd.internal.replicas.current`."""

    @property
    def count(self) -> int: ...
    def sum(self, tensor: Tensor) -> Tensor: ...
    def gather(self, rows: Tensor) -> Tensor: ...
    def global_offset(self, rows: Tensor) -> Any: ...


#: Tensors, arrays or data sets in dicts, lists and tuples, as Keras's models take them.
Nested: TypeAlias = Any
#: The result of a `get_config`.
Config: TypeAlias = dict[str, Any]
FilePath: TypeAlias = str | os.PathLike[str]
#: A shape, `None` for an axis of any length.
Shape: TypeAlias = tuple[int | None, ...]
Role: TypeAlias = Literal["teacher", "student"]
#: Which values of a feature map form a row.
RowsKind: TypeAlias = Literal["pooled", "flattened", "positions"]
#: A layer's name for both models, or a pair (teacher's, student's).
Feature: TypeAlias = str | tuple[str, str]
#: Names of a feature's layers, `(teacher's, student's)`; `None` if the teacher's is not
#: read.
FeaturePair: TypeAlias = tuple[str | None, str]
#: A number, or a function of the training step.
Weight: TypeAlias = float | Callable[[Any], Any]
#: `"auto"` is measured on the teacher's outputs of each batch.
Temperature: TypeAlias = Weight | Literal["auto"]
#: `(index, count)`.
Shard: TypeAlias = tuple[int, int]
