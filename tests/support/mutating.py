"""Mutants of the package, each run against the tests that call what it changes. ``make mutants``.

PYTHONPATH=tests python -m support.mutating [MUTANTS] [--seed 0] [--only TEXT ...] [--rooms NAME ...]

Mutants are made in a copy of the checkout. Each is run in a process that is forked from one whose imports are done,
the package's own apart. The tests are first run once without a fault, to see which of them call which function.
Where PyTorch is used, and the environment of ``make test-training`` is there, tests of it see what the others do not.
tests/equivalent.txt names the mutants that no test can notice, with the reason.

Neither mutmut nor cosmic-ray is used: in mutmut 3.8 there is no sample to be drawn, and cosmic-ray 8.7 changes the files
in place and starts a process for each mutant, whose imports alone take seconds.

Ctrl-C ends a run early: it prints the rate of the mutants that it has seen.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import importlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import NoReturn

import pytest
from tqdm import tqdm

from support.mutants import Mutant, mutants
from support.paths import ROOT

__all__ = ["EQUIVALENT", "Reach", "equivalent"]

ROOMS = ("catalog", "files", "volumes", "storage", "scans", "checks")
#: Those of them that start no processes are run.
_TESTS = (
    *(f"tests/{room}" for room in ROOMS),
    *(f"tests/test_{name}.py" for name in ("collection", "errors", "second_data_set")),
    "tests/test_docs.py::test_checks_are_the_modules",
    "tests/test_docs.py::test_issues_are_the_catalogs",
)
#: Tests that show what other rooms make only as rows, or as scores of predicted masks and points. They take
#: longer, so they see only what the others do not notice.
_TESTS_OF_USERS = (
    *(
        f"tests/rows/test_{name}.py"
        for name in ("batches", "builder", "conversions", "kept", "load", "parts", "room")
    ),
    *(f"tests/evaluation/test_{name}.py" for name in ("points_run", "run")),
)
#: A module with this uses PyTorch where it is in use. The tests of that, in another environment, and which of them
#: start no interpreters, which takes long.
_OF_TORCH = re.compile(r'sys\.modules\b.*"torch"')
_TESTS_OF_TORCH = ("tests/storage/with_torch.py", "tests/training/with_torch.py")
_QUICK_OF_TORCH = "not spawn and not forkserver and not process_group"
_PYTHON_WITH_TORCH = ROOT / ".venv" / "training" / "bin" / "python"

#: What hardly any test calls may be called once only, and its result be cached.
_FEW = 4
#: Seconds that the tests of a mutant may take, as they took without it: those that call it, and the rest.
_SECONDS, _SECONDS_OF_THE_REST = 24.0, 4.0
#: How many times as long they may take with it.
_PATIENCE = 8.0
#: Of memory that a mutant may ask for.
_BYTES = 8 << 30

#: What takes long to import, and reads nothing of the tests' environment then.
_WARM = (
    *("blosc2", "click", "duckdb", "fsspec", "hypothesis.strategies", "isal.igzip", "matplotlib.pyplot"),
    *("nibabel", "pandas", "polars", "pyarrow.parquet", "scipy.ndimage"),
)

EQUIVALENT = ROOT / "tests" / "equivalent.txt"


@dataclass
class Reach:
    """What the tests call, and how long each takes."""

    seconds: dict[str, float] = field(default_factory=dict)
    #: By file and the line at which a function starts, the tests that call it.
    callers: dict[str, list[str]] = field(default_factory=dict)

    def tests(self, mutant: Mutant) -> list[str]:
        """Return the tests to run for a mutant: those of its module, the others that call it, the rest.

        The rest are the tests of the module that do not call it. For what the import of a module runs, and for
        what few tests call, maybe since its result is cached, they are all tests.
        """
        module = Path(mutant.path)
        own = f"tests/{module.parent.name}/test_{module.stem}.py::"
        callers = set()
        for function, tests in self.callers.items():
            path, _, line = function.partition(":")
            if path == mutant.path and mutant.starts in (None, int(line)):
                callers.update(tests)
        is_hidden = mutant.starts is None or len(callers) < _FEW
        rest = {test for test in self.seconds if is_hidden or test.startswith(own)} - callers
        return [
            *self._affordable(callers, own, _SECONDS),
            *self._affordable(rest, own, _SECONDS_OF_THE_REST),
        ]

    def _affordable(self, tests: Iterable[str], own: str, seconds: float) -> Iterator[str]:
        """Yield tests until they take longer: one set of parameters of each function, then another of each."""
        sets: collections.Counter[str] = collections.Counter()
        ranks = {}
        for test in sorted(tests, key=self.seconds.__getitem__):
            function = test.partition("[")[0]
            ranks[test] = (not test.startswith(own), sets[function])
            sets[function] += 1
        for test in sorted(ranks, key=lambda test: ranks[test]):
            seconds -= self.seconds[test]
            if seconds < 0:
                return
            yield test


class Noting:
    """A plug-in of pytest that notes which functions of the package a test calls."""

    def __init__(self, package: Path) -> None:
        self.reach = Reach()
        self._package = f"{package}{os.sep}"
        self._called: set[tuple[str, int]] = set()

    def _note(self, frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if code.co_filename.startswith(self._package):
            self._called.add((code.co_filename, code.co_firstlineno))

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item):
        self._called.clear()
        start = time.process_time()
        threading.settrace(self._note)
        sys.settrace(self._note)
        yield
        sys.settrace(None)
        threading.settrace(None)
        self.reach.seconds[item.nodeid] = time.process_time() - start
        for path, line in self._called:
            name = Path(path).relative_to(Path(self._package).parent).as_posix()
            self.reach.callers.setdefault(f"{name}:{line}", []).append(item.nodeid)


class Choosing:
    """A plug-in of pytest that runs some tests, in their order. One that takes far too long ends the process."""

    def __init__(self, tests: Sequence[str], seconds: Mapping[str, float]) -> None:
        self._order = {test: number for number, test in enumerate(tests)}
        self._seconds = seconds

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted(
            (item for item in items if item.nodeid in self._order), key=lambda item: self._order[item.nodeid]
        )

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        signal.setitimer(signal.ITIMER_PROF, 5 + _PATIENCE * self._seconds[item.nodeid])  # of the processor


class Checkout:
    """A copy of the checkout, in which the package may be changed."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "copy"
        self._folder = folder
        shutil.copytree(
            ROOT,
            self.root,
            ignore=shutil.ignore_patterns(".*", "build", "dist", "__pycache__", "results"),
        )

    def reach(self, tests: Sequence[str]) -> Reach:
        """Run tests, without a fault."""
        noting = Noting(self.root / "ctspine1k")
        told = self._folder / "reach.json"

        def run() -> int:
            status = self._pytest(tests, noting)
            told.write_text(json.dumps(vars(noting.reach)))
            return status

        ended, printed = self._fork(run, seconds=3600)
        if ended != "exit 0":
            raise SystemExit(f"{printed}\nThe tests fail without a fault: {ended}.")
        return Reach(**json.loads(told.read_text()))

    def killed_by(self, mutant: Mutant, tests: Sequence[str], seconds: Mapping[str, float]) -> str | None:
        """Return what notices a mutant, None if nothing does; ``seconds`` that each test takes without it."""
        files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
        return self._noticed(
            mutant,
            lambda: self._pytest(files, Choosing(tests, seconds), "-x"),
            seconds=60 + 10 * _PATIENCE * sum(seconds[test] for test in tests),
        )

    def killed_with_torch(self, mutant: Mutant) -> str | None:
        """Return which test of PyTorch notices a mutant, None if none does, or if none can be run."""
        if not (_OF_TORCH.search(mutant.before) and self._has_torch):
            return None
        return self._noticed(mutant, self._pytest_with_torch, seconds=120)

    @cached_property
    def _has_torch(self) -> bool:
        if not _PYTHON_WITH_TORCH.exists():
            return False
        ended, printed = self._fork(self._pytest_with_torch, seconds=300)
        if ended != "exit 0":
            raise SystemExit(f"{printed}\nThe tests of PyTorch fail without a fault: {ended}.")
        return True

    def _pytest_with_torch(self) -> NoReturn:
        os.environ["PYTHONPATH"] = str(self.root)
        command = [str(_PYTHON_WITH_TORCH), "-m", "pytest", "-qx", "-p", "no:cacheprovider", *self._places]
        os.execv(command[0], [*command, "-k", _QUICK_OF_TORCH, *_TESTS_OF_TORCH])  # noqa: S606

    def _noticed(self, mutant: Mutant, tests: Callable[[], int], *, seconds: float) -> str | None:
        path = self.root / mutant.path
        path.write_text(mutant.after)
        try:
            ended, printed = self._fork(tests, seconds=seconds)
        finally:
            path.write_text(mutant.before)
        if ended == "exit 0":
            return None
        told = [line for line in printed.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return told[0][:110] if told else f"{ended} {printed[-200:]}"

    @property
    def _places(self) -> list[str]:
        return ["--basetemp", str(self._folder / "tests"), "--rootdir", str(self.root)]

    def _pytest(self, files: Iterable[str], plugin: object, *options: str) -> int:
        unseen = ["-W", "ignore::pytest.PytestAssertRewriteWarning", "-m", "not processes and not cluster"]
        arguments = ["-q", "-p", "no:cacheprovider", *unseen, "--hypothesis-seed=0", *self._places]
        return int(pytest.main([*arguments, *options, *files], plugins=[plugin]))

    def _fork(self, work: Callable[[], int], *, seconds: float) -> tuple[str, str]:
        """Have a child do the work, and return how it ended and what it has printed."""
        scratch, output = self._folder / "scratch", self._folder / "output"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                self._settle(scratch, output)
                status = work()
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        end = time.monotonic() + seconds
        while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0):
            if time.monotonic() > end:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
            time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # what it has started
        status = os.waitstatus_to_exitcode(ended[1])
        how = f"exit {status}" if status >= 0 else f"ended by {signal.Signals(-status).name}"
        return how, output.read_text(errors="replace")

    def _settle(self, scratch: Path, output: Path) -> None:
        """Let this process see the copy and not the checkout, and take no more memory than it may."""
        import resource  # which Windows lacks: a test imports this module

        os.setpgid(0, 0)
        opened = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for descriptor in (1, 2):
            os.dup2(opened, descriptor)
        resource.setrlimit(resource.RLIMIT_DATA, (_BYTES, _BYTES))
        for name in [name for name in sys.modules if name.partition(".")[0] == "support"]:
            del sys.modules[name]
        sys.path[:] = [
            str(self.root),
            str(self.root / "tests"),
            *(p for p in sys.path if p not in (str(ROOT / "tests"), "")),
        ]
        sys.dont_write_bytecode = True
        os.environ["TMPDIR"] = str(scratch)
        tempfile.tempdir = str(scratch)
        os.chdir(self.root)


def mutants_of(root: Path, rooms: Iterable[str]) -> list[Mutant]:
    """Return all mutants of the modules of some rooms of a checkout, always in the same order."""
    return [
        mutant
        for room in rooms
        for path in sorted((root / "ctspine1k" / room).glob("*.py"))
        for mutant in mutants(path.relative_to(root).as_posix(), path.read_text(encoding="utf-8"))
    ]


def equivalent(text: str) -> dict[tuple[str, tuple[str, ...]], str]:
    """Return the reasons why mutants are equivalent, by name and changes.

    The text has blocks between empty lines: a reason in lines that start with #, then a name and its changes,
    or several.
    """
    reasons = {}
    for block in text.strip().split("\n\n"):
        lines = [line.strip() for line in block.splitlines()]
        reason = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
        rest = [line for line in lines if not line.startswith("#")]
        starts = [number for number, line in enumerate(rest) if line.startswith("ctspine1k/")]
        for start, end in itertools.pairwise([*starts, len(rest)]):
            reasons[rest[start], tuple(rest[start + 1 : end])] = reason
    return reasons


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sample of mutants, and print those that survive."""
    parser = argparse.ArgumentParser(prog="support.mutating")
    parser.add_argument("count", nargs="?", type=int, default=300, help="of mutants in the sample")
    parser.add_argument("--seed", type=int, default=0, help="what the sample is drawn from")
    parser.add_argument(
        "--only",
        metavar="TEXT",
        nargs="+",
        help="all mutants whose name and changes contain one of these, no sample",
    )
    parser.add_argument("--rooms", nargs="+", default=ROOMS, help="whose modules are changed")
    parser.add_argument("--verbose", action="store_true", help="also print what kills each mutant")
    options = parser.parse_args(arguments)
    reasons = equivalent(EQUIVALENT.read_text(encoding="utf-8"))
    counts: collections.Counter[str] = collections.Counter()
    start = time.monotonic()
    for name in _WARM:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory(prefix="ctspine1k-mutants-") as folder:
        checkout = Checkout(Path(folder))
        sample = mutants_of(checkout.root, options.rooms)
        if options.only is None:
            sample = random.Random(options.seed).sample(sample, min(options.count, len(sample)))
        else:
            named = [(one, "\n".join([one.name, *one.changes])) for one in sample]
            sample = [one for one, name in named if any(text in name for text in options.only)]
        reaches = [checkout.reach(tests) for tests in (_TESTS, _TESTS_OF_USERS)]
        with contextlib.suppress(KeyboardInterrupt):  # then what was seen so far counts
            for mutant in tqdm(sample, disable=None):
                outcome = _outcome(checkout, reaches, mutant, reasons)
                counts[outcome.partition(" ")[0]] += 1
                if outcome.startswith("survived"):
                    lines = [f"{mutant.name}, line {mutant.line}: {outcome}", *mutant.changes, ""]
                    tqdm.write("\n".join(lines))
                elif options.verbose:
                    tqdm.write(f"{mutant.name}, line {mutant.line}: {outcome}")
    seen, tests = counts.total(), sum(len(reach.seconds) for reach in reaches)
    judged = seen - counts["equivalent"]
    print(
        f"{seen} of {len(sample)} mutants of seed {options.seed}, {tests} tests, "
        f"{time.monotonic() - start:.0f} s: {counts['killed']} killed, {counts['equivalent']} equivalent, "
        f"{counts['survived']} survived. Killed of those that are not equivalent: "
        f"{counts['killed'] / max(judged, 1):.1%}"
    )
    return 1 if counts["survived"] else 0


def _outcome(
    checkout: Checkout,
    reaches: Sequence[Reach],
    mutant: Mutant,
    reasons: Mapping[tuple[str, tuple[str, ...]], str],
) -> str:
    if (mutant.name, mutant.changes) in reasons:
        return "equivalent"
    killer, count = None, 0
    for reach in reaches:
        if killer is None and (tests := reach.tests(mutant)):
            killer = checkout.killed_by(mutant, tests, reach.seconds)
            count += len(tests)
    killer = killer or checkout.killed_with_torch(mutant)
    return f"survived {count} tests" if killer is None else f"killed by {killer}"


if __name__ == "__main__":
    sys.exit(main())
