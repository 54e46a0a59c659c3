"""The two files of a small case."""

import pytest
from support.volumes import intensities, labels, save


@pytest.fixture
def mask(tmp_path):
    return save(tmp_path / "case_seg.nii.gz", labels())


@pytest.fixture
def image(tmp_path):
    return save(tmp_path / "case.nii.gz", intensities())
