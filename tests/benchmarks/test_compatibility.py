"""The compatibility table: built from records, and one record from a run."""

import json
import warnings
from pathlib import Path

import keras
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
architectures = pytest.importorskip("architectures")
compatibility = pytest.importorskip("compatibility")

LINES = EXAMPLES / "benchmarks" / "results" / "compatibility.jsonl"
PAGE = EXAMPLES / "docs" / "backbones.md"


@pytest.mark.backend_neutral
def test_page_shows_the_table_that_the_script_prints(capsys):
    compatibility.main(["--table", str(LINES)])
    assert capsys.readouterr().out in PAGE.read_text()


@pytest.mark.backend_neutral
def test_table_has_each_architecture_once_per_backend():
    records = [json.loads(line) for line in LINES.read_text().splitlines()]
    tried = [(r["library"], r["architecture"], r["backend"]) for r in records]
    names = {(library, architecture) for library, architecture, _ in tried}
    assert len(names) >= 10
    assert names <= {(a.library, a.name) for a in architectures.ARCHITECTURES}
    assert sorted(tried) == sorted(
        (*name, backend) for name in names for backend in compatibility.BACKENDS
    )


def test_record_lists_completed_steps_or_the_error(tmp_path, capsys, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Its imports emit deprecation warnings.
        pytest.importorskip("keras_hub", reason="keras_hub is not installed")
    options = {"stackwise_num_repeats": [1, 1], "stackwise_num_filters": [4, 6]}
    good = architectures.Architecture("keras_hub", "good", "VGGBackbone", options, 16)
    bad = good._replace(name="bad", options={**options, "image_shape": "none"})
    monkeypatch.setattr(compatibility, "ARCHITECTURES", (good, bad))
    path = tmp_path / "lines.jsonl"
    compatibility.main(["--out", str(path)])
    worked, failed = map(json.loads, path.read_text().splitlines())
    assert worked["done"] == list(compatibility.STEPS)
    assert worked["levels"] == ["P0", "P1"]
    assert worked["backend"] == keras.backend.backend()
    assert worked["error"] is None and worked["versions"]["keras"] == keras.__version__
    assert failed["done"] == [] and failed["error"].startswith("build: TypeError: ")
    capsys.readouterr()
    compatibility.main(["--table", str(path)])
    head, _, *rows = capsys.readouterr().out.splitlines()
    column = [cell.strip() for cell in head.split("|")].index(keras.backend.backend())
    assert [row.split("|")[column].strip() for row in rows[:2]] == [
        "works",
        "fails in build",
    ]
    assert rows[3].startswith("- keras_hub bad") and "TypeError" in rows[3]
