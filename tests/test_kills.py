"""Verbs that are killed at random moments and before changes of files, and whose disk fills up: some of each.

`make chaos` does it for long, also with conversions, of which ``rows/test_kept.py`` has some.
"""

import pytest
from support.killed import verbs_of
from support.killing import Undisturbed, fill_disks, kill_again_and_again, kill_at_changes

pytestmark = pytest.mark.processes


@pytest.mark.parametrize(
    ("name", "kills", "changes"),
    [("export", 2, 3), ("nnunet", 1, 2), ("scan", 1, 2), ("download", 1, 2), ("evaluate", 1, 2)],
)
def test_kills_leave_no_trace(tmp_path, hub, name, kills, changes):
    verb = verbs_of(tmp_path / "raw", hub, [name], count=3)[-1]
    whole = Undisturbed.of(verb, tmp_path / "whole")
    kill_again_and_again(whole, tmp_path / "out", kills, seed=5)
    assert kill_at_changes(whole, tmp_path / "out", changes) == changes


def test_a_full_disk_is_told_and_leaves_no_trace(tmp_path, hub):
    (verb,) = verbs_of(tmp_path / "raw", hub, ["scan"], count=3)
    whole = Undisturbed.of(verb, tmp_path / "whole")
    found = fill_disks(whole, tmp_path / "small", 2)
    if found is None:
        pytest.skip("no small file system can be mounted")
    assert found == 2
