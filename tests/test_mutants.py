"""What `make mutants` changes, and that the mutants which are named as equivalent are still among them."""

import ast
import itertools

from support.mutants import mutants
from support.mutating import EQUIVALENT, Reach, equivalent
from support.paths import ROOT

SOURCE = '''
"""A module."""

__all__ = ["f"]


class C:
    """A class."""

    def f(self, a: int = 1) -> str:
        """A function."""
        if a < 2 and not self:
            raise ValueError("a", a == 3)
        return g("key", "two words", f"{a}", b=True)
'''


def test_a_mutant_has_one_fault_and_text_has_none():
    found = mutants("m.py", SOURCE)
    assert {mutant.name for mutant in found} == {"m.py C.f"}
    assert {mutant.starts for mutant in found} == {10}
    for mutant in found:
        ast.parse(mutant.after)
    first, condition, error, call = (
        "def f(self, a: int = 1) -> str:",
        "if a < 2 and not self:",
        *SOURCE.split("\n")[12:14],
    )
    changed = [
        (old.removeprefix("- "), new.removeprefix("+ ")) for old, new in (mutant.changes for mutant in found)
    ]
    assert changed == [
        (first, "def f(self, a: int = 2) -> str:"),
        (condition, "if (not a < 2 and (not self)):"),
        (condition, "if (a < 2 or not self):"),
        (condition, "if (a <= 2) and not self:"),
        (condition, "if a < 3 and not self:"),
        (condition, "if a < 2 and (self):"),
        (error.strip(), "pass"),
        (error.strip(), 'raise ValueError("a", (a != 3))'),
        (error.strip(), 'raise ValueError("a", a == 4)'),
        (call.strip(), "return None"),
    ] + [(call.strip(), new) for _, new in changed[10:]]
    assert [new for _, new in changed[10:]] == [
        "return (g('key', 'two words', b=True))",
        'return g("key", "two words", f"{a}", )',
        'return g(\'keyXX\', "two words", f"{a}", b=True)',
        'return g("key", "two words", f"{a}", b=False)',
    ]


def test_tests_of_the_module_come_first_then_those_of_its_room():
    own, room, far, uncalled = (
        f"tests/{name}::test" for name in ("a/test_m.py", "a/test_n.py", "b/test_o.py", "b/test_p.py")
    )
    also = "tests/a/test_m.py::test_of_what_is_cached"
    reach = Reach(
        dict.fromkeys((far, uncalled, also, room, own), 1.0), {"ctspine1k/a/m.py:10": [far, room, own]}
    )
    (mutant, *_) = mutants("ctspine1k/a/m.py", SOURCE)
    assert reach.tests(mutant) == [own, room, far, also]
    reach.seconds[far] = 60
    assert reach.tests(mutant) == [own, room]


def test_each_equivalent_mutant_is_one_that_is_made():
    reasons = equivalent(EQUIVALENT.read_text(encoding="utf-8"))
    assert all(reasons.values())
    for path, names in itertools.groupby(reasons, key=lambda name: name[0].partition(" ")[0]):
        made = {(m.name, m.changes) for m in mutants(path, (ROOT / path).read_text(encoding="utf-8"))}
        assert set(names) <= made
