"""Keras's own tests of its Distiller, run on ours with one import changed.

They are read from the installed Keras, so that each release brings its current tests.
"""

import types
import unittest
import warnings
from pathlib import Path

import keras
import pytest

PATH = Path(keras.__file__).parent / "src" / "distillation" / "distiller_test.py"
if not PATH.exists():
    pytest.skip("Keras is installed without its tests", allow_module_level=True)
SOURCE = PATH.read_text(encoding="utf-8")

THEIRS = "from keras.src.distillation.distiller import Distiller\n"
OURS = "from keras_dskd import Distiller\n"

# Tests that assert a limitation of Keras's class, and why ours fails them.
FROZEN = (
    "Keras's class freezes the caller's teacher for good. Ours leaves it as it was, "
    "and never trains it, whatever `trainable` says."
)
LIMITATIONS = {
    "test_distiller_initialization": FROZEN,
    "test_teacher_freezing": FROZEN,
}
# The assertions of that limitation, and what is true of ours instead.
ASSERTIONS = {
    f"self.assertFalse({teacher}.trainable)": f"self.assertTrue({teacher}.trainable)"
    for teacher in ("self.teacher", "new_teacher")
}


class Limitation(AssertionError):
    """A test failed only at an assertion of the limitation."""


def case_in(source):
    """Returns the test case that the source defines."""
    module = types.ModuleType("keras_distiller_test")
    with warnings.catch_warnings():
        # The file in which Keras registers its pytest marks is not installed.
        warnings.simplefilter("ignore", pytest.PytestUnknownMarkWarning)
        exec(compile(source, PATH, "exec"), vars(module))
    return module.TestDistiller


def failures(case, name):
    """The tracebacks of one test, as text."""
    result = unittest.TestResult()
    case(name).run(result)
    assert (result.testsRun, result.skipped) == (1, [])
    return [text for _, text in result.errors + result.failures]


# In a dict, because pytest would collect a test case in the module.
CASES = {"keras": case_in(SOURCE), "ours": case_in(SOURCE.replace(THEIRS, OURS))}
NAMES = unittest.TestLoader().getTestCaseNames(CASES["keras"])


def test_only_the_import_is_changed():
    assert SOURCE.count(THEIRS) == 1
    assert SOURCE.count("import Distiller\n") == 1
    assert set(LIMITATIONS) < set(NAMES)


# Keras warns that its class has no `build` and is not compiled after loading.
@pytest.mark.filterwarnings("ignore::UserWarning:keras.*")
@pytest.mark.parametrize("name", NAMES)
def test_keras_distiller_passes(name):
    """If so, a failure of ours is not caused by the way the tests are run."""
    assert failures(CASES["keras"], name) == []


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=pytest.mark.xfail(strict=True, raises=Limitation, reason=reason)
            if (reason := LIMITATIONS.get(name))
            else (),
        )
        for name in NAMES
    ],
)
def test_our_distiller_passes(name):
    tracebacks = failures(CASES["ours"], name)
    if name in LIMITATIONS and len(tracebacks) == 1:
        (text,) = tracebacks
        is_false = text.endswith("AssertionError: True is not false\n")
        if is_false and any(assertion in text for assertion in ASSERTIONS):
            raise Limitation(text)
    if tracebacks:
        pytest.fail("\n".join(tracebacks), pytrace=False)


@pytest.mark.parametrize("name", LIMITATIONS)
def test_our_distiller_passes_the_rest_of_those_tests(name):
    source = SOURCE.replace(THEIRS, OURS)
    for assertion, what_holds in ASSERTIONS.items():
        assert assertion in source
        source = source.replace(assertion, what_holds)
    assert failures(case_in(source), name) == []
