"""What a fresh interpreter imports with the package."""

import ast

import interpreter


def test_importing_the_package_imports_no_further_backend():
    code = (
        "import sys, keras; before = set(sys.modules); import keras_dskd; "
        "print({n.split('.')[0] for n in set(sys.modules) - before})"
    )
    new = ast.literal_eval(interpreter.run("-c", code).strip().splitlines()[-1])
    assert "keras_dskd" in new
    assert not new & {"tensorflow", "jax", "torch", "matplotlib"}
