"""What this package uses of `datasets` beyond its documented interface is there, by name."""

import datasets
import pytest

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


def test_no_other_module_reaches_into_datasets():
    import ast
    from pathlib import Path

    import ctspine1k

    package = Path(ctspine1k.__file__).parent
    reaching = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("datasets."):
                reaching.add((path.relative_to(package).as_posix(), node.module))
    assert reaching <= {
        ("rows/_datasets.py", "datasets.info"),
        ("rows/_datasets.py", "datasets.iterable_dataset"),
        ("rows/_datasets.py", "datasets.splits"),
        ("rows/_datasets.py", "datasets.utils.info_utils"),
        ("storage/feature.py", "datasets.features.features"),
    }, reaching


@pytest.mark.parametrize("name", _datasets.__all__)
def test_what_it_offers_is_used(name):
    from pathlib import Path

    import ctspine1k

    package = Path(ctspine1k.__file__).parent
    sources = [path.read_text() for path in package.rglob("*.py") if path.name != "_datasets.py"]
    assert name == "missing_api" or any(name in source for source in sources)
