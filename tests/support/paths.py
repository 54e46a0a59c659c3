"""Where things are in the checkout."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "CTSpine1K.py"

#: For tests with names of files that are bytes, and no text.
names_of_bytes = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such names")
