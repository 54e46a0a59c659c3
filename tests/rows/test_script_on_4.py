"""The loading script on datasets 4 and later; conftest.py leaves this module out on 3.x."""

import datasets
import pytest
from support.paths import SCRIPT


def test_scripts_are_refused():
    """Should this fail one day, scripts are back, and README is to say so."""
    with pytest.raises(RuntimeError, match="Dataset scripts are no longer supported"):
        datasets.load_dataset(str(SCRIPT))
