"""Threads overlap, pass on errors, and end when their consumer stops."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from vaectl.prefetch import batch_by_shape, delayed, parallel_streams, prefetch

DEADLOCK_SECONDS = 10
"""A test that waits longer fails."""


@pytest.fixture(autouse=True)
def no_thread_stays():
    before = threading.active_count()
    yield
    end = time.monotonic() + DEADLOCK_SECONDS
    while threading.active_count() > before:
        assert time.monotonic() < end, "a stage was left running"
        time.sleep(0.01)


class Source:
    """Gives 0, 1, 2, ... up to `count`, and remembers what was made and whether it was closed."""

    def __init__(self, count: int, failure: BaseException | None = None) -> None:
        self.made: list[int] = []
        self.closed = threading.Event()
        self.items = self._items(count, failure)

    def _items(self, count, failure):
        try:
            for number in range(count):
                self.made.append(number)
                yield number
            if failure:
                raise failure
        finally:
            self.closed.set()


def eventually(condition) -> bool:
    end = time.monotonic() + DEADLOCK_SECONDS
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_the_items_come_in_order(count, depth):
    source = Source(count)
    with prefetch(source.items, depth) as items:
        assert list(items) == list(range(count))
    assert source.closed.is_set()


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_items_are_made_ahead_but_no_more_than_asked_for(depth):
    source = Source(100)
    with prefetch(source.items, depth) as items:
        assert eventually(lambda: len(source.made) == depth)
        time.sleep(0.05)
        assert len(source.made) == depth
        assert next(items) == 0
        assert eventually(lambda: len(source.made) == depth + 1)
        time.sleep(0.05)
        assert len(source.made) == depth + 1


@pytest.mark.parametrize("error", [ValueError("broken"), MemoryError(), KeyboardInterrupt(), SystemExit(3)])
def test_what_a_stage_raises_is_raised_after_the_items_before_it(error):
    source = Source(3, error)
    got = []
    with pytest.raises(type(error)) as caught, prefetch(source.items) as items:
        got.extend(items)
    assert caught.value is error
    assert got == [0, 1, 2]


def test_what_a_stage_raises_while_it_closes_is_raised_too():
    class Stubborn(Iterator[int]):
        def __next__(self):
            raise StopIteration

        def close(self):
            raise OSError("cannot close")

    with pytest.raises(OSError, match="cannot close"), prefetch(Stubborn()) as items:
        list(items)


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_leaving_early_ends_and_closes_the_stage(taken):
    source = Source(10**9)
    with prefetch(source.items) as items:
        for _ in range(taken):
            next(items)
    assert source.closed.is_set()
    assert len(source.made) <= taken + 3


def test_an_error_of_the_consumer_ends_the_stage_and_is_the_one_raised():
    source = Source(10**9)
    with pytest.raises(OSError, match="disk full"), prefetch(source.items):
        raise OSError("disk full")
    assert source.closed.is_set()


def chain(source: Source, second) -> list[int]:
    got = []
    with prefetch(source.items) as first, prefetch(second(first)) as items:
        for item in items:
            got.append(item)
            if len(got) == 5:
                break
    return got


def test_stages_in_a_row_end_together():
    source = Source(10**9)
    assert chain(source, lambda items: (item * 10 for item in items)) == [0, 10, 20, 30, 40]
    assert source.closed.is_set()


def test_the_error_of_the_first_stage_passes_through_the_second():
    source = Source(2, ValueError("unreadable"))
    with pytest.raises(ValueError, match="unreadable"):
        chain(source, lambda items: (item for item in items))


def test_the_error_of_the_second_stage_ends_the_first():
    def fail(items):
        next(items)
        raise ValueError("out of memory")
        yield

    source = Source(10**9)
    with pytest.raises(ValueError, match="out of memory"):
        chain(source, fail)
    assert source.closed.is_set()


def test_ctrl_c_does_not_wait_for_the_item_at_hand():
    hold, begun = threading.Event(), threading.Event()

    def slow(items):
        for item in items:
            begun.set()
            hold.wait(DEADLOCK_SECONDS)
            yield item

    def interrupt():
        assert begun.wait(DEADLOCK_SECONDS)
        raise KeyboardInterrupt

    source = Source(10**9)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt), prefetch(source.items) as first, prefetch(slow(first)):
        interrupt()
    assert time.monotonic() - start < DEADLOCK_SECONDS / 2
    hold.set()
    assert eventually(source.closed.is_set)


UNDER_WAY = """
import time
import torch
from vaectl.prefetch import prefetch

def made():
    end = time.monotonic() + 1
    while time.monotonic() < end:
        torch.rand(1000, 1000).softmax(0)
    yield

try:
    with prefetch(made()):
        time.sleep(0.1)
        raise KeyboardInterrupt
except KeyboardInterrupt:
    pass
"""


def test_a_script_may_end_after_ctrl_c_while_pytorch_computes():
    ended = subprocess.run([sys.executable, "-c", UNDER_WAY], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_delayed_item_comes_when_as_many_more_have_been_taken(count):
    source = Source(6)
    for number, item in enumerate(delayed(source.items, count)):
        assert item == number
        assert len(source.made) == min(6, number + 1 + count)
    assert number == 5


# In parallel


def parallel_map(function, items, workers):
    """Streams of one result each."""

    def stream(item):
        yield function(item)

    return parallel_streams(stream, items, workers)


def test_streams_come_one_after_the_other_and_whole():
    def stream(number: int) -> Iterator[tuple[int, int]]:
        time.sleep(0.01 * (number == 0))
        yield from ((number, place) for place in range(number))

    wanted = [(number, place) for number in range(6) for place in range(number)]
    assert list(parallel_streams(stream, range(6), 3)) == wanted


def test_each_stream_is_one_result_ahead_however_long_it_is():
    made: list[int] = [0] * 4

    def stream(number: int) -> Iterator[int]:
        for place in range(1000):
            made[number] += 1
            yield place

    results = parallel_streams(stream, range(4), 2)
    assert [next(results) for _ in range(10)] == list(range(10))
    assert eventually(lambda: made == [11, 1, 1, 0])
    time.sleep(0.05)
    assert made == [11, 1, 1, 0]
    results.close()


def test_results_come_in_order_however_long_each_takes():
    def slowly(number: int) -> int:
        time.sleep(0.02 * (number % 3 == 0))
        return -number

    assert list(parallel_map(slowly, range(20), 4)) == [-number for number in range(20)]


def test_as_many_are_made_at_once_as_there_are_workers():
    together = threading.Barrier(3, timeout=DEADLOCK_SECONDS)
    assert list(parallel_map(lambda number: together.wait() * 0 + number, range(6), 3)) == list(range(6))


def test_no_more_than_the_workers_and_as_many_are_ahead():
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(50):
            taken.append(number)
            yield number

    for given, _ in enumerate(parallel_map(lambda number: number, items(), 3), 1):
        assert len(taken) <= given + 3


def test_a_failure_comes_in_its_place_and_ends_it():
    results = parallel_map(lambda number: 1 // (3 - number), range(10), 2)
    assert [next(results) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []


def test_who_leaves_early_starts_nothing_more():
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        return number

    results = parallel_map(work, range(1000), 2)
    next(results)
    results.close()
    assert len(begun) <= 5


def test_neighbours_of_one_kind_come_together_up_to_a_size():
    words = ["a", "b", "cc", "d", "e", "f", "g", "hh", "ii"]
    assert list(batch_by_shape(words, len, 3)) == [["a", "b"], ["cc"], ["d", "e", "f"], ["g"], ["hh", "ii"]]


def test_a_batch_is_given_before_the_next_is_read():
    source = iter(range(100))
    assert next(batch_by_shape(source, lambda _: 0, 4)) == [0, 1, 2, 3]
    assert next(source) == 4
