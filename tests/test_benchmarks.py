"""Benchmarks call what they measure as it is now: they are run by hand, and would break unseen."""

import importlib.util
import sys

import numpy as np
import pytest
from support.paths import ROOT
from support.volumes import labels, save


@pytest.fixture
def benchmark(monkeypatch):
    """The benchmark of evaluations, as a module."""
    pytest.importorskip("resource", reason="it reads processor times as Unix has them")
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    spec = importlib.util.spec_from_file_location(
        "evaluation_benchmark", ROOT / "benchmarks" / "evaluation.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("measuring")


@pytest.mark.slow
def test_a_case_is_scored_as_by_a_worker(benchmark, tmp_path):
    reference = labels().astype(np.uint8)
    save(tmp_path / "reference.nii.gz", reference)
    save(tmp_path / "prediction.nii.gz", np.roll(reference, 1, axis=1))
    with_distances, alone = benchmark.ours(tmp_path), benchmark.ours_overlap(tmp_path)
    assert {row["label"] for row in alone.rows} == set(np.unique(reference).tolist()) - {0}
    for whole, overlap in zip(with_distances.rows, alone.rows, strict=True):
        assert whole["dice"] == overlap["dice"] < 1
        assert overlap["hd_mm"] != overlap["hd_mm"]
    assert any(row["hd_mm"] > 0 for row in with_distances.rows)
