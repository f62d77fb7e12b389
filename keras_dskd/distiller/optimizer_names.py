"""Optimizers in saved configs, under names that every backend knows."""

from typing import Any

import keras


def name_optimizers_publicly(config: Any) -> None:
    """Applies `name_publicly` to the optimizers of compiled models in a config."""
    if isinstance(config, dict):
        compiled = config.get("compile_config")
        if isinstance(compiled, dict):
            name_publicly(compiled.get("optimizer"))
    for value in config.values() if isinstance(config, dict) else config:
        if isinstance(value, (dict, list, tuple)):
            name_optimizers_publicly(value)


def name_publicly(optimizer: Any) -> None:
    """Changes a serialized optimizer so that it loads on any backend.

    On torch, Keras records the module of its torch optimizers, although
    `keras.optimizers` has a class of the same name for all backends.
    """
    while isinstance(optimizer, dict) and hasattr(
        keras.optimizers, optimizer.get("class_name", "")
    ):
        if str(optimizer.get("module")).startswith("keras."):
            optimizer["module"] = "keras.optimizers"
        optimizer = optimizer["config"].get("inner_optimizer")
