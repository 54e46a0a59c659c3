import multiprocessing
import os
import signal
import sys
import threading
import time
from functools import partial

import pytest

from ctspine1k.errors import WorkerError
from ctspine1k.running import stops
from ctspine1k.running.stops import check_stopped, deferred_interrupts, interruptible, stop_with


class Dying:
    """Something in whose destructor a signal comes."""

    def __init__(self, number=signal.SIGINT):
        self.number = number

    def __del__(self):
        signal.raise_signal(self.number)


def interrupt():
    signal.raise_signal(signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_python_loses_an_interrupt_in_a_destructor():
    """Why there is this module."""
    Dying()


def deferred(*steps, **options):
    """Which steps are done before an interrupt ends them."""
    done = []
    with pytest.raises(KeyboardInterrupt):
        _do(steps, done, options)
    return done


def _do(steps, done, options):
    with deferred_interrupts(**options):
        for step in steps:
            step()
            done.append(step)


def wait():
    """What waits for others."""
    with interruptible():
        pass


def waited(step):
    def wait_and_do():
        with interruptible():
            step()

    return wait_and_do


def go_on():
    pass


def test_an_interrupt_in_a_destructor_is_not_lost():
    assert deferred(Dying, go_on, check_stopped, go_on) == [Dying, go_on]


def test_it_is_raised_at_the_end_of_the_block_if_nothing_asks_before():
    assert deferred(interrupt, go_on) == [interrupt, go_on]
    check_stopped()


def test_it_is_raised_once():
    with deferred_interrupts():
        interrupt()
        with pytest.raises(KeyboardInterrupt):
            check_stopped()
        check_stopped()


def test_two_at_once_are_one():
    with deferred_interrupts():
        interrupt()
        interrupt()
        with pytest.raises(KeyboardInterrupt):
            check_stopped()
        check_stopped()


def test_a_second_one_is_not_deferred():
    pause = partial(time.sleep, 0.02)
    assert deferred(interrupt, pause, interrupt, go_on, patience=0.01) == [interrupt, pause]


def test_while_a_process_only_waits_it_is_raised_at_once():
    assert deferred(go_on, waited(interrupt), go_on) == [go_on]


def test_one_that_came_before_ends_the_wait():
    assert deferred(interrupt, wait, go_on) == [interrupt]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_that_was_raised_at_once_and_lost_is_raised_again():
    lost = waited(Dying)
    assert deferred(lost, go_on, check_stopped, go_on) == [lost, go_on]
    assert deferred(lost, go_on) == [lost, go_on]


def test_after_a_wait_it_is_deferred_again():
    waits = waited(wait)
    assert deferred(waits, interrupt, go_on, check_stopped) == [waits, interrupt, go_on]


def test_one_that_comes_while_it_is_asked_for_is_kept():
    """When it was just seen that there is none: the next look must find it."""
    lines = []

    def trace(frame, event, _):
        if frame.f_code is stops._Deferral.handle.__code__ and event == "line":
            lines.append(frame.f_lineno)
            if len(lines) == 2:
                interrupt()
        return trace

    def ask():
        sys.settrace(trace)
        try:
            check_stopped()
        finally:
            sys.settrace(None)

    assert deferred(ask, go_on) == [ask, go_on]


def test_an_error_and_an_interrupt_are_an_interrupt():
    def fail():
        raise ValueError("broken")

    with pytest.raises(KeyboardInterrupt) as told:
        _do([interrupt, fail], [], {})
    assert isinstance(told.value.__context__, ValueError)


def test_the_handlers_that_were_there_are_called_and_come_back(monkeypatch):
    seen = []

    def handler(number, frame):
        seen.append(number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, handler) for number in numbers]
    try:
        with deferred_interrupts():
            for number in numbers:
                signal.raise_signal(number)
                assert seen == []
                check_stopped()
                assert seen == [number]
                seen.clear()
        assert [signal.getsignal(number) for number in numbers] == [handler, handler]
    finally:
        for number, old in zip(numbers, before, strict=True):
            signal.signal(number, old)


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with deferred_interrupts():
            interrupt()
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
            check_stopped()
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_block_within_a_block_adds_nothing():
    def within():
        with deferred_interrupts():
            interrupt()

    assert deferred(within, go_on, check_stopped, go_on) == [within, go_on]


def test_other_threads_handle_no_signals():
    steps = []

    def work():
        with deferred_interrupts(), interruptible():
            check_stopped()
            steps.append("done")

    thread = threading.Thread(target=work)
    assert deferred(interrupt, thread.start, thread.join) == [interrupt, thread.start, thread.join]
    assert steps == ["done"]


def test_a_worker_that_nobody_waits_for_stops(monkeypatch):
    monkeypatch.setattr(stops, "_stop", None)
    check_stopped()
    stop = multiprocessing.RawValue("b", 0)
    stop_with(stop)
    check_stopped()
    stop.value = 1
    with pytest.raises(WorkerError, match="this process is not needed any more"):
        check_stopped()


def test_of_two_while_a_process_waits_the_second_changes_nothing():
    """What the first one raised is on its way through what must be closed."""

    def closes():
        with interruptible():
            try:
                interrupt()
            finally:
                interrupt()
                closed.append(True)

    closed = []
    assert deferred(closes) == []
    assert closed == [True]


@pytest.mark.processes
@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows forks no processes")
def test_a_forked_worker_leaves_it_to_the_process_that_forked_it():
    with deferred_interrupts():
        worker = os.fork()
        if worker == 0:
            try:
                interrupt()
                check_stopped()
            finally:
                os._exit(0 if sys.exc_info()[0] is None else 1)
        assert os.waitpid(worker, 0)[1] == 0
