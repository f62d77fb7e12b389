"""The package as a whole: what it exports, and what imports what."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import keras
import pytest

import keras_dskd
from keras_dskd.trainer_methods import Evaluate, Fit, Predict

PACKAGE = Path(keras_dskd.__file__).parent
BACKENDS = {"tensorflow", "jax", "torch"}

# Each module, or folder of modules, and those of the package that it may import.
BELOW = {
    "version": set(),
    "types": set(),  # Which all modules may import.
    "arrays": set(),
    "interrupts": set(),
    "replicas": set(),
    "kept_values": {"interrupts", "replicas"},
    "pairs": set(),
    "model_graph": set(),
    "pyramid": {"model_graph", "ops"},
    "taps": {"model_graph", "pyramid"},
    "added_losses": {"model_graph", "replicas"},
    "plotting": {"plotting"},
    "term_means": set(),
    "weights": set(),
    "ops": {"ops"},
    "losses": {"losses", "model_features", "ops", "replicas"},
    "layers": {"layers", "ops", "replicas", "weights"},
    "model_features": {"kept_values", "model_graph", "ops", "pyramid", "taps"},
    "structure_table": set(),
    "html_report": {"plotting", "version"},
    # Figures and files are made on demand, from NumPy arrays alone.
    "structure": {
        "arrays",
        "html_report",
        "model_features",
        "ops",
        "pairs",
        "plotting",
        "structure_table",
        "taps",
    },
    "sample_weights": {"ops", "replicas"},
    "locks": set(),
    "files": {"locks"},
    "teacher_cache": {
        "arrays",
        "files",
        "locks",
        "model_features",
        "pairs",
        "saving",
        "teacher_cache",
    },
    "trainer_methods": set(),
    "arguments": {"model_graph", "taps", "terms"},
    "saving": {"arguments", "files"},
    "terms": {"model_graph", "ops", "sample_weights", "taps"},
    "overview": {"terms"},
    "distiller": {
        "added_losses",
        "arguments",
        "kept_values",
        "model_features",
        "ops",
        "overview",
        "pairs",
        "replicas",
        "sample_weights",
        "saving",
        "taps",
        "term_means",
        "teacher_cache",
        "terms",
        "trainer_methods",
        "weights",
    },
    "augmented_pairs": {"arrays"},
    "mixed_pairs": {"arrays", "ops", "teacher_cache"},
    "pair_check": {"arrays", "model_features", "pairs", "structure", "taps"},
    "callbacks": {"model_features", "ops", "pairs", "structure", "taps", "terms"},
    "recipe_features": {"model_features", "ops", "taps"},
    "recipes": {"distiller", "losses", "model_features", "recipe_features"},
    "__init__": {
        "augmented_pairs",
        "callbacks",
        "distiller",
        "layers",
        "losses",
        "mixed_pairs",
        "ops",
        "pair_check",
        "plotting",
        "recipes",
        "structure",
        "teacher_cache",
        "version",
    },
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
    own = {n.split(".")[1] for n in imported(path) if n.startswith("keras_dskd.")}
    assert own - {"types"} <= BELOW[part(path)]


@pytest.mark.parametrize("folder", ["losses", "layers"])
def test_losses_and_layers_never_import_one_another(folder):
    # What they have in common is no loss.
    common = tuple(
        f"keras_dskd.losses.{m}." for m in ("of_layers", "logits", "paired_rows")
    )
    for path in (PACKAGE / folder).glob("*.py"):
        if path.name != "__init__.py":
            assert not any(
                name.startswith(f"keras_dskd.{folder}")
                for name in imported(path)
                if not name.startswith(common)
            )


def test_backends_are_imported_in_one_module_alone():
    importing = {
        part(path)
        for path in PACKAGE.rglob("*.py")
        if BACKENDS & {name.split(".")[0] for name in imported(path)}
    }
    assert importing == {"replicas"}


def test_nothing_private_of_keras_is_imported():
    for path in PACKAGE.rglob("*.py"):
        assert not any(name.startswith("keras.src") for name in imported(path))


def test_importing_the_package_imports_no_further_backend():
    code = (
        "import sys, keras; before = set(sys.modules); import keras_dskd; "
        "print({n.split('.')[0] for n in set(sys.modules) - before})"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    new = ast.literal_eval(result.stdout.strip().splitlines()[-1])
    assert "keras_dskd" in new
    assert not new & (BACKENDS | {"matplotlib"})


def test_public_names_are_those_of_the_contract():
    assert set(keras_dskd.__all__) == {
        "AugmentedPairs",
        "CachedDataset",
        "Distiller",
        "MixedPairs",
        "StructureHistory",
        "__version__",
        "callbacks",
        "check_pairs",
        "dskd",
        "layers",
        "losses",
        "open_teacher_cache",
        "ops",
        "plot_history",
        "recommended",
        "shard_rows",
        "structure_report",
    }
    assert set(keras_dskd.losses.__all__) == {
        "AttentionTransfer",
        "CenteredKernelAlignment",
        "ChannelAlignment",
        "ChannelIndependence",
        "ContrastiveDistillation",
        "DecoupledDistillation",
        "FitNet",
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
    """All that the public names hold to be called, by name."""
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
                    for part in ("fget", "fset", "__func__"):  # Properties and others.
                        member = getattr(member, part, None) or member
                    if inspect.isfunction(member):
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
    code = function.__code__
    count = code.co_argcount + code.co_kwonlyargcount
    count += bool(code.co_flags & inspect.CO_VARARGS)
    count += bool(code.co_flags & inspect.CO_VARKEYWORDS)
    # (Of `fit` and the like `inspect.signature` would tell Keras's arguments.)
    arguments = {*code.co_varnames[:count], "return"} - {"self", "cls"}
    return arguments - set(inspect.get_annotations(function))


def test_arguments_and_results_have_types():
    without = {
        name: arguments_without_types(function) for name, function in public_functions()
    }
    assert not {name: found for name, found in without.items() if found}


@pytest.mark.parametrize("typed", [Fit, Evaluate, Predict])
def test_a_method_of_keras_takes_what_its_type_says(typed):
    method = getattr(keras.Model, typed.__name__.lower())
    said, taken = (
        [(p.name, p.kind, p.default) for p in inspect.signature(f).parameters.values()]
        for f in (typed.__call__, method)
    )
    assert said == taken


def test_loss_and_layer_of_one_name_are_saved_under_different_ones():
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
