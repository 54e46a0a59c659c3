import multiprocessing
import threading

import pytest
from support.threads import prefetching

from ctspine1k.running.threads import prefetch, prefetch_together, spread, spread_map, usable_threads


def test_the_next_item_is_made_meanwhile():
    made = threading.Event()

    def items():
        yield 1
        made.set()
        yield 2

    stream = prefetch(items())
    assert next(stream) == 1
    assert made.wait(timeout=10)  # though nobody has asked for the second
    assert list(stream) == [2]


def test_an_error_comes_where_its_item_would():
    def items():
        yield 1
        raise ZeroDivisionError

    stream = prefetch(items())
    assert next(stream) == 1
    with pytest.raises(ZeroDivisionError):
        next(stream)


def test_items_of_several_iterators_are_made_at_the_same_time():
    meeting = threading.Barrier(2, timeout=10)

    def items(first):
        for number in range(3):
            meeting.wait()  # for the other
            yield first + number

    stream = prefetch_together(items(0), items(10))
    assert list(stream) == [(0, 10), (1, 11), (2, 12)]
    assert prefetching() == []
    stream = prefetch_together(iter(range(10**9)), iter(range(10**9)))
    assert next(stream) == (0, 0)
    stream.close()
    assert prefetching() == []


def test_several_iterators_have_one_length_and_the_first_error_is_raised():
    def items(name, count):
        yield from range(count)
        raise ZeroDivisionError(name)

    with pytest.raises(ValueError, match="1 of 2 iterators ended before the others"):
        list(prefetch_together(iter("ab"), iter("abc")))
    for first, second, raised in ((1, 2, "first"), (2, 1, "second"), (1, 1, "first")):
        stream = prefetch_together(items("first", first), items("second", second))
        assert next(stream) == (0, 0)
        with pytest.raises(ZeroDivisionError, match=raised):
            next(stream)
    assert prefetching() == []


def test_items_that_nobody_wants_any_more():
    stream = prefetch(iter(range(10**9)))
    assert next(stream) == 0
    assert len(prefetching()) == 1
    stream.close()
    assert prefetching() == []


@pytest.mark.parametrize("threads", [0, 1, 2, 5, 100])
def test_all_items_are_shared(threads):
    done: list[int] = []
    spread(done.extend, list(range(20)), threads)
    assert sorted(done) == list(range(20))


@pytest.mark.parametrize("threads", [1, 3])
def test_results_are_in_the_order_of_the_items(threads):
    assert spread_map(lambda item: 10 * item, [3, 1, 2, 1], threads) == [30, 10, 20, 10]
    assert spread_map(lambda item: item, [], threads) == []
    with pytest.raises(ZeroDivisionError):
        spread_map(lambda item: 1 // item, [1, 0, 2], threads)


@pytest.mark.parametrize("bad", [0, 1, 19])
def test_an_error_of_any_share_is_raised_when_all_are_done(bad):
    done: list[int] = []

    def work(items):
        done.extend(items)
        if bad in items:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        spread(work, list(range(20)), 3)
    assert sorted(done) == list(range(20))


def test_threads_are_few_however_many_are_asked_for():
    for threads in range(2, 40):
        spread(lambda items: None, list(range(50)), threads)
    helpers = [thread for thread in threading.enumerate() if thread.name.startswith("ctspine1k-spread")]
    assert 0 < len(helpers) <= multiprocessing.cpu_count()


def test_processes_share_the_cores():
    cores = usable_threads()
    assert cores >= 1
    assert usable_threads(processes=cores) == 1
    assert usable_threads(processes=10_000) == 1


@pytest.mark.processes
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_worker_has_one_and_can_still_share(method):
    spread(lambda items: None, list(range(50)), 2)  # there are helpers when it is forked
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(usable_threads) == 1
        assert pool.apply(shared_sum) == 190


def shared_sum() -> int:
    done: list[int] = []
    spread(done.extend, list(range(20)), 3)
    return sum(done)
