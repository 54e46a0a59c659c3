"""What this package uses of `datasets` beyond its documented interface is there, by name."""

from pathlib import Path

import datasets

import ctspine1k
from ctspine1k.rows import _datasets


def test_nothing_is_missing():
    assert _datasets.missing_api() == []


def test_what_is_missing_is_named(monkeypatch):
    def without_job_id(self, gen_kwargs, fpath, file_format, max_shard_size):
        """As another version might have it."""

    monkeypatch.setattr(datasets.ArrowBasedBuilder, "_prepare_split_single", without_job_id)
    monkeypatch.delattr(datasets.BuilderConfig, "create_config_id")
    assert _datasets.missing_api() == [
        "ArrowBasedBuilder._prepare_split_single(job_id)",
        "BuilderConfig.create_config_id(config_kwargs)",
        "BuilderConfig.create_config_id(custom_features)",
    ]


def test_what_it_offers_is_used():
    package = Path(ctspine1k.__file__).parent
    others = "".join(path.read_text() for path in package.rglob("*.py") if path.name != "_datasets.py")
    assert [name for name in _datasets.__all__ if name not in others] == ["missing_api"]
