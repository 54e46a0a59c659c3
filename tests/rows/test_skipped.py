import fsspec
import pytest

from ctspine1k.errors import SkippedCasesWarning
from ctspine1k.rows.skipped import read_skipped, record_skipped, warn_skipped


def test_what_is_recorded_is_read(tmp_path):
    files = fsspec.filesystem("file")
    assert read_skipped(files, str(tmp_path)) == {}
    record_skipped(files, str(tmp_path), "b.c", "no mask file")
    record_skipped(files, str(tmp_path), "a", "broken")
    assert read_skipped(files, str(tmp_path)) == {"a": "broken", "b.c": "no mask file"}


def test_warning_counts_names_and_tells_why():
    with pytest.warns(SkippedCasesWarning, match=r"^12 cases are left out of here: 0 \(x\), .* and 2 more$"):
        warn_skipped({str(number): "x" for number in range(12)}, "here")
