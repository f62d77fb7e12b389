"""The package as a whole: its exports and its imports."""

import ast
import inspect
from pathlib import Path

import keras
import pytest

import keras_dskd

PACKAGE = Path(keras_dskd.__file__).parent
BACKENDS = {"tensorflow", "jax", "torch"}

# The rooms of the package from bottom to top, each with the rooms it may import.
_GROUND = {"internal", "ops"}
_READ = _GROUND | {"features", "data"}
BELOW = {
    "internal": set(),
    "ops": {"internal"},
    "features": _GROUND,
    "layers": _GROUND,
    "data": _GROUND,
    "losses": _GROUND | {"features"},
    "teacher_cache": _READ,
    "structure": _READ,
    "distiller": _READ | {"losses", "teacher_cache", "structure"},
    "callbacks": _READ | {"structure", "distiller"},
    "recipes": _READ | {"losses", "distiller"},
    "choice": _READ | {"losses", "distiller", "recipes"},
    "__init__": _READ
    | {"callbacks", "choice", "distiller", "layers", "losses", "recipes"}
    | {"structure", "teacher_cache"},
}


def part(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in {path}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(
    "path",
    sorted(PACKAGE.rglob("*.py")),
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_imports_run_one_way(path):
    rooms = {n.split(".")[1] for n in imported(path) if n.startswith("keras_dskd.")}
    assert rooms <= BELOW[part(path)] | {part(path)}


def test_every_room_is_in_the_table():
    assert {part(path) for path in PACKAGE.rglob("*.py")} == set(BELOW)


@pytest.mark.parametrize("folder", ["losses", "layers"])
def test_losses_and_layers_never_import_one_another(folder):
    # Code that losses share is not a loss.
    modules = "base", "logits", "output_loss", "output_structures", "paired_rows"
    common = tuple(f"keras_dskd.losses.{module}." for module in modules)
    for path in (PACKAGE / folder).glob("*.py"):
        # `output_targets` chooses one of the losses.
        if path.name not in ("__init__.py", "output_targets.py"):
            assert not any(
                name.startswith(f"keras_dskd.{folder}")
                for name in imported(path)
                if not name.startswith(common)
            )


def test_backends_are_imported_in_only_one_module():
    importing = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if BACKENDS & {name.split(".")[0] for name in imported(path)}
    }
    assert importing == {str(Path("internal", "replicas.py"))}


def test_no_private_module_of_keras_is_imported():
    for path in PACKAGE.rglob("*.py"):
        assert not any(name.startswith("keras.src") for name in imported(path))


@keras.saving.register_keras_serializable(package="tests")
class Instance(keras.Model):
    """Has every attribute that Keras sets on a compiled model."""


def private_names_of_keras():
    """Underscored names that Keras's classes and objects have."""
    inputs = keras.Input((2,))
    functional = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    subclassed = Instance()
    for model in (functional, subclassed):
        model.compile("sgd", "mse")
    objects = [functional, subclassed, functional.layers[1], functional.optimizer]
    objects += [inputs, functional.weights[0], keras.metrics.Mean()]
    return {
        name
        for each in objects
        for name in {*dir(each), *vars(each)}
        if name.startswith("_") and not name.startswith("__")
    } | {"_losses_override", "_jax_state", "_remat_mode", "_random_generator"}


def private_attributes(path):
    """Underscored attributes that a file reads, sets or defines on any object."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.ClassDef):
            yield from (each.name for each in node.body if hasattr(each, "name"))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "getattr",
            "hasattr",
            "setattr",
            "delattr",
        ):
            yield from (a.value for a in node.args if isinstance(a, ast.Constant))


def test_private_names_of_keras_stay_in_one_module():
    of_keras = private_names_of_keras()
    assert "_keras_history" in of_keras and "_flatten_layers" in of_keras
    for path in PACKAGE.rglob("*.py"):
        used = of_keras.intersection(private_attributes(path))
        if path.relative_to(PACKAGE) != Path("internal", "keras_private.py"):
            assert not used, path
        else:
            assert "_keras_history" in used


def test_public_names_are_those_of_the_contract():
    assert set(keras_dskd.__all__) == {
        "ArrayDataset",
        "AugmentedPairs",
        "CachedDataset",
        "Distiller",
        "LabeledShare",
        "MixedPairs",
        "StructureHistory",
        "__version__",
        "callbacks",
        "check_pairs",
        "choose",
        "dskd",
        "layers",
        "losses",
        "open_teacher_cache",
        "ops",
        "plot_history",
        "recommended",
        "shard_rows",
        "structure_report",
        "with_unlabeled",
    }
    assert set(keras_dskd.losses.__all__) == {
        "AttentionTransfer",
        "BinarySoftTargets",
        "CenteredKernelAlignment",
        "ChannelAlignment",
        "ChannelIndependence",
        "ChannelWiseDistillation",
        "ContrastiveDistillation",
        "DecoupledDistillation",
        "FitNet",
        "HardTargets",
        "RegressionTargets",
        "RelationalDistillation",
        "SimilarityPreserving",
        "SoftTargets",
        "SpatialUniformity",
    }
    assert set(keras_dskd.layers.__all__) == {
        "ChannelIndependence",
        "SpatialUniformity",
    }
    for module in (keras_dskd, keras_dskd.losses, keras_dskd.layers, keras_dskd.ops):
        assert all(hasattr(module, name) for name in module.__all__)


def public_functions():
    """Every public callable by name: functions, classes, their methods."""
    modules = [keras_dskd]
    modules += [m for m in vars(keras_dskd).values() if inspect.ismodule(m)]
    public = {
        f"{module.__name__}.{name}": getattr(module, name)
        for module in modules
        for name in getattr(module, "__all__", ())
    }
    for name, value in public.items():
        if inspect.isfunction(value):
            yield name, value
        elif inspect.isclass(value):
            for base in value.__mro__:
                if not base.__module__.startswith("keras_dskd"):
                    continue
                for attribute, member in vars(base).items():
                    for part in (
                        "fget",
                        "fset",
                        "__func__",
                    ):  # Of properties and classmethods.
                        member = getattr(member, part, None) or member
                    is_written = (
                        inspect.isfunction(member)
                        and Path(inspect.unwrap(member).__code__.co_filename).exists()
                    )  # Dataclasses generate theirs from strings.
                    if is_written:
                        yield f"{name}.{attribute}", member


def test_public_functions_are_found():
    assert {
        "keras_dskd.dskd",
        "keras_dskd.Distiller.__init__",
        "keras_dskd.Distiller.save",
        "keras_dskd.Distiller.trainable",
        "keras_dskd.ops.soft_targets",
    } <= {name for name, _ in public_functions()}


def arguments_without_types(function):
    function = inspect.unwrap(function)
    if not function.__module__.startswith("keras_dskd"):
        return set()  # A wrapped method of Keras.
    code = function.__code__
    count = code.co_argcount + code.co_kwonlyargcount
    count += bool(code.co_flags & inspect.CO_VARARGS)
    count += bool(code.co_flags & inspect.CO_VARKEYWORDS)
    # For `fit` and similar methods `inspect.signature` would return Keras's arguments.
    arguments = {*code.co_varnames[:count], "return"} - {"self", "cls"}
    return arguments - set(inspect.get_annotations(function))


def test_arguments_and_results_have_types():
    without = {
        name: arguments_without_types(function) for name, function in public_functions()
    }
    assert not {name: found for name, found in without.items() if found}


@pytest.mark.parametrize("name", ["fit", "evaluate", "predict"])
def test_trainer_methods_have_the_signature_of_keras(name):
    ours, kerass = (getattr(cls, name) for cls in (keras_dskd.Distiller, keras.Model))
    assert inspect.signature(ours) == inspect.signature(kerass)


def test_loss_and_layer_with_the_same_name_are_saved_under_different_names():
    names = {
        keras.saving.get_registered_name(cls)
        for cls in (
            keras_dskd.losses.ChannelIndependence,
            keras_dskd.layers.ChannelIndependence,
            keras_dskd.losses.SpatialUniformity,
            keras_dskd.layers.SpatialUniformity,
        )
    }
    assert len(names) == 4
