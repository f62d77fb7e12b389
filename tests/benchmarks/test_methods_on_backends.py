"""The method comparison runs on each backend."""

import json

import keras
import pytest

for needed in ("scipy", "sklearn"):
    pytest.importorskip(needed, reason=f"the benchmarks need {needed}")
methods = pytest.importorskip("methods")


def test_job_on_mixed_pairs_is_recorded(tmp_path):
    job = "--data breast_cancer --limit 100 --seeds 1 --mix 1 --methods soft_targets"
    job += " --epochs 1 --teacher-epochs 1"
    job += " --teacher-widths 8 8 8 --student-widths 4 4 4"
    methods.main([*job.split(), "--out", str(tmp_path)])
    teacher, record = map(
        json.loads, (tmp_path / "runs.jsonl").read_text().splitlines()
    )
    assert (teacher["method"], record["method"]) == ("teacher", "soft_targets")
    for each in (teacher, record):
        assert each["backend"] == keras.backend.backend()
        assert each["mix"] == 1.0
        assert 0 <= each["accuracy"] <= 1
        assert set(each["structure"]) == {"block2", "features"}
