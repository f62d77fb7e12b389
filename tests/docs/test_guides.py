"""Every Python block in the README and the pages of `examples` runs."""

from pathlib import Path

import keras
import pytest
import snippet_names
import snippets

pytestmark = pytest.mark.backend_neutral

ROOT = Path(__file__).parents[2]
PAGES = {
    str(path.relative_to(ROOT)): found
    for path in (ROOT / "README.md", *sorted((ROOT / "examples").rglob("*.md")))
    if (found := snippets.of_page(path))
}
OPTIONAL = ("keras_cv", "keras_hub", "sklearn", "tensorboard")
SAMPLES = {
    # Each of two processes takes batches of 256 rows.
    "examples/DISTRIBUTED.md": 512,
    # With fewer samples, good pairs may look shuffled within their class.
    "examples/docs/data.md": 256,
    "examples/docs/debugging.md": 256,
}


# The README runs on each backend, the other pages on torch.
RUNS = [
    pytest.param(page, marks=pytest.mark.every_backend if page == "README.md" else ())
    for page in PAGES
]


@pytest.mark.parametrize("page", RUNS)
def test_page_runs(page, tmp_path, monkeypatch):
    blocks = PAGES[page]
    pytest.importorskip("matplotlib", reason="pages draw figures with matplotlib")
    for package in OPTIONAL:
        if any(package in block.names() for block in blocks):
            pytest.importorskip(package, reason=f"{page} imports {package}")
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    samples = SAMPLES.get(page, snippet_names.SAMPLES)
    with snippets.one_step_per_fit():
        snippet_names.make_files(blocks)
        snippets.run(blocks, snippet_names.names_for(blocks, samples=samples))
