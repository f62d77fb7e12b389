"""What a fresh interpreter imports with the package."""

import ast

import interpreter


def test_importing_the_package_imports_no_further_backend():
    code = (
        "import sys, keras; before = set(sys.modules); import keras_dskd; "
        "print({n.split('.')[0] for n in set(sys.modules) - before})"
    )
    printed = interpreter.run("-c", code, is_light=False)
    new = ast.literal_eval(printed.strip().splitlines()[-1])
    assert "keras_dskd" in new
    assert not new & {"tensorflow", "jax", "torch", "matplotlib"}
