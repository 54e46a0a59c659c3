"""The loading script, on any version of datasets; what it loads on 3.x is in test_script_on_3.py."""

import json

import pytest
from support.paths import SCRIPT

WITHOUT_PACKAGE = """
import importlib.abc, json, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "ctspine1k":
            raise ModuleNotFoundError("No module named 'ctspine1k'", name="ctspine1k")

sys.meta_path.insert(0, Absent())
try:
    exec(compile(open(sys.argv[1]).read(), "CTSpine1K.py", "exec"))
except ImportError as error:
    print(error)
"""


@pytest.mark.processes
def test_without_the_package_the_script_says_what_to_install(python):
    run = python(WITHOUT_PACKAGE, str(SCRIPT))
    assert "this script needs the package ctspine1k (No module named 'ctspine1k')" in run.stdout, run.stderr
    assert "pip install" in run.stdout


@pytest.mark.processes
def test_script_names_the_builder_and_nothing_else(python):
    run = python(
        f"import json, runpy; print(json.dumps(sorted(k for k in runpy.run_path({str(SCRIPT)!r}) if k[0] != '_')))"
    )
    assert json.loads(run.stdout) == ["CTSpine1K"], run.stderr
