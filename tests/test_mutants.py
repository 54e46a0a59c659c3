"""What `make mutants` changes, and that the mutants which are named as equivalent are still among them."""

import ast

import pytest
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

#: What is not a fault, or the same one: the type of a cast, and `strict` without its constant.
CHECKED = 'x = cast("int", zip(a, b, strict=True))'


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


def test_the_type_of_a_cast_is_no_fault_and_the_same_fault_is_made_once():
    assert {mutant.changes[1:] for mutant in mutants("m.py", CHECKED)} == {
        ("+ pass",),
        ('+ x = (cast("int"))'.replace('"', "'"),),
        ('+ x = cast("int", (zip(a, strict=True)))',),
        ('+ x = cast("int", zip(a, b, strict=False))',),
    }


def test_tests_of_the_module_come_first_then_those_that_call_it():
    own, other, cached, far = (
        f"tests/a/test_{name}" for name in ("m.py::1", "n.py::2", "m.py::3", "o.py::4")
    )
    reach = Reach(
        dict.fromkeys((far, cached, other, own), 1.0),
        {"ctspine1k/a/m.py:2": [other, own], "ctspine1k/a/n.py:2": [far]},
    )
    called = mutants("ctspine1k/a/m.py", "\ndef f(): return 1")[0]
    imported = mutants("ctspine1k/a/m.py", "X = 2")[0]
    assert reach.tests(called)[:3] == [own, other, cached]
    assert set(reach.tests(called)) == set(reach.tests(imported)) == {own, other, cached, far}
    for number in range(4):
        reach.seconds[f"tests/a/test_n.py::more{number}"] = 0.5
        reach.callers["ctspine1k/a/m.py:2"].append(f"tests/a/test_n.py::more{number}")
    assert far not in reach.tests(called)  # which is called by enough tests
    reach.seconds[other] = 60
    assert other not in reach.tests(called)


@pytest.mark.slow
def test_each_equivalent_mutant_is_one_that_is_made():
    reasons = equivalent(EQUIVALENT.read_text(encoding="utf-8"))
    assert all(reasons.values())
    named: dict[str, list[str]] = {}
    for name, _ in reasons:
        named.setdefault(name.partition(" ")[0], []).append(name)
    made = {
        (mutant.name, mutant.changes)  # of these alone: a comparison of lines takes a while
        for path, names in named.items()
        for mutant in mutants(path, (ROOT / path).read_text(encoding="utf-8"))
        if mutant.name in names
    }
    assert set(reasons) <= made
