"""Iterators that run in threads, so that reading, computing and writing overlap. Does not know the items."""

from __future__ import annotations

import atexit
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import groupby, islice
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")

_END = object()


@contextmanager
def prefetch(items: Generator[T, None, None], depth: int = 2) -> Iterator[Iterator[T]]:
    """Iterate over `items` in a thread, at most `depth` items ahead.

    Exceptions of `items` are raised in the consumer. On leaving the block, the thread has ended and `items` is closed.
    Ctrl-C does not wait for the current item, but the exit of the program does.
    """
    queue: SimpleQueue[object] = SimpleQueue()
    room = Semaphore(depth - 1)
    stop = Event()
    failure: list[BaseException] = []

    def make() -> None:
        try:
            with closing(items):
                for item in items:
                    queue.put(item)
                    room.acquire()
                    if stop.is_set():
                        break
        except BaseException as error:
            failure.append(error)
        finally:
            queue.put(_END)

    def take() -> Iterator[T]:
        while (item := queue.get()) is not _END:
            room.release()
            yield item  # type: ignore[misc]  # everything but the end marker is a T
        if failure:
            raise failure.pop()

    thread = Thread(target=make, daemon=True)
    thread.start()
    wait = True
    try:
        yield take()
    except KeyboardInterrupt:
        wait = False
        atexit.register(thread.join)  # PyTorch aborts the process if the interpreter exits while it works
        raise
    finally:
        stop.set()
        room.release()
        if wait:
            thread.join()


def delayed(items: Iterable[T], count: int) -> Iterator[T]:
    """Yield each item when `count` more have been taken, and the last ones at the end."""
    waiting: deque[T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting


def parallel_streams(
    function: Callable[[S], Generator[T, None, None]], items: Iterable[S], workers: int
) -> Generator[T, None, None]:
    """Yield what the generator `function(item)` yields, for each item, in order, computed by `workers` threads.

    At most `workers` more generators have begun, and each is one result ahead. So memory grows neither with the number
    of items nor with the length of a generator.
    """
    begun: deque[tuple[Generator[T, None, None], Future[T | object]]] = deque()
    pool = ThreadPoolExecutor(workers)

    def first() -> Iterator[T]:
        stream, result = begun.popleft()
        while (value := result.result()) is not _END:
            result = pool.submit(next, stream, _END)
            yield value  # type: ignore[misc]  # everything but the end marker is a T

    try:
        for item in items:
            stream = function(item)
            begun.append((stream, pool.submit(next, stream, _END)))
            if len(begun) > workers:
                yield from first()
        while begun:
            yield from first()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def batch_by_shape(items: Iterable[T], shape: Callable[[T], object], size: int) -> Iterator[list[T]]:
    """Yield batches of at most `size` consecutive items of the same `shape`."""
    for _, alike in groupby(items, shape):
        while batch := list(islice(alike, size)):
            yield batch
