"""Every Python block in a docstring of the package runs."""

import importlib
from pathlib import Path

import keras
import pytest
import snippet_names
import snippets

import keras_dskd

pytestmark = pytest.mark.backend_neutral

PACKAGE = Path(keras_dskd.__file__).parent
EXAMPLES = {
    f"{'.'.join(path.relative_to(PACKAGE.parent).with_suffix('').parts)}:{name}": found
    for path in sorted(PACKAGE.rglob("*.py"))
    for name, found in snippets.of_docstrings(path).items()
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_runs(example, tmp_path, monkeypatch):
    blocks = EXAMPLES[example]
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    module = importlib.import_module(example.partition(":")[0])
    with snippets.one_step_per_fit():
        snippets.run(blocks, {**vars(module), **snippet_names.names_for(blocks)})
