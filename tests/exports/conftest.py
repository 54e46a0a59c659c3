"""What the tests of exports stand on."""

import pytest
from support.exports import export_parquet, options_of, options_of_many


@pytest.fixture
def export(tree, split_file, tmp_path):
    """`export_parquet` of the tree, to a folder of the test's own."""

    def run(out=tmp_path / "out", **options):
        defaults = options_of(tree, split_file)
        if "repo_id" in options:
            del defaults["data_dir"]
        return export_parquet(out, **{**defaults, **options})

    return run


@pytest.fixture
def out(tmp_path):
    """The folder that `export` writes to."""
    return tmp_path / "out"


@pytest.fixture(scope="session")
def many(tmp_path_factory):
    """Options that make 12 shards, so that an export can be stopped in the middle of them."""
    return options_of_many(tmp_path_factory.mktemp("many"))


@pytest.fixture(scope="session")
def undisturbed(many, tmp_path_factory):
    """What their export is when nothing happens."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    export_parquet(out, **many)
    return out
