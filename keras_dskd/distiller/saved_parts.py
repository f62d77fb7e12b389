"""A distiller's layers and random states, in a form that Keras's files can hold."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras


class Parts(Sequence[Any]):
    """A model's layers, as a sequence that Keras's files do not traverse.

    Keras names the layers in a list by class and number. In a file without the teacher,
    it would mistake the student for the teacher. So it must find the layers as
    attributes.
    """

    def __init__(self, layers: Iterable[keras.layers.Layer]) -> None:
        self._parts = tuple(layers)

    def __getitem__(self, index: int | slice) -> Any:
        return self._parts[index]

    def __len__(self) -> int:
        return len(self._parts)

    def __repr__(self) -> str:
        return repr(list(self._parts))


class SeedStates(keras.layers.Layer):
    """Saves the states of random layers, such as dropout, which Keras's files lack.

    Args:
        seeds: Function that returns the variables.
    """

    def __init__(self, seeds: Callable[[], list[keras.Variable]]) -> None:
        super().__init__(name="seeds", trainable=False)
        self._seeds = seeds
        self.built = True

    def save_own_variables(self, store: Any) -> None:
        for index, seed in enumerate(self._seeds()):
            store[str(index)] = seed

    def load_own_variables(self, store: Any) -> None:
        seeds = self._seeds()
        if len(store.keys()) != len(seeds):
            raise ValueError(
                f"Expected the states of {len(seeds)} random layers. Received: "
                f"{len(store.keys())}"
            )
        for index, seed in enumerate(seeds):
            seed.assign(store[str(index)])
