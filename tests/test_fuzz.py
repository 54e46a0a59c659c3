"""A few thousand damaged inputs, by the two suites together; `make fuzz` reads more of them, and others."""

import re
import sys

import pytest
from support.forks import fork

pytestmark = pytest.mark.processes


def test_damaged_inputs_end_in_errors_of_ours_or_in_right_values():
    process = fork("support.fuzzing:fuzz_there", 1600)  # 30 of each subject
    assert process.wait() == 0, process.printed[0]


def test_whatever_else_is_reported_with_its_number():
    process = fork("support.fuzzing:fuzz_there", 6, 0, 0.5, "support.fuzzed:wrong_subjects")
    failures = {
        0: "KeyError",
        2: "a crash: ended the process (-11)",
        3: "a hang: took too long",
        4: "MemoryError",
        5: "AssertionError",
    }
    if sys.platform != "linux":  # which alone limits memory
        del failures[4]
    assert process.wait() == len(failures)
    found = process.printed[0].splitlines()
    assert [int(re.match(r"input (\d+) of seed 0, ", line)[1]) for line in found] == list(failures)
    for line, failure in zip(found, failures.values(), strict=True):
        assert failure in line
