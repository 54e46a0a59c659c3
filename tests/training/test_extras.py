"""What needs a package of an extra says which."""

import importlib
import sys

import pytest

from ctspine1k.errors import MissingPackageError


@pytest.mark.parametrize("package", ["monai", "torchio"])
def test_a_missing_package_names_its_extra(package, monkeypatch):
    module = f"ctspine1k.training.{package}"
    for name in {package, *(name for name in sys.modules if name.startswith(f"{package}."))}:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(MissingPackageError, match=rf"needs {package}: pip install 'ctspine1k\[{package}\]'"):
        importlib.import_module(module)
