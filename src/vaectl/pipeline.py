"""Stages of a job that overlap: while one frame batch is computed, the next is read and the last one written."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from queue import Empty, Queue
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")

_END = object()


def ahead(items: Iterator[T], depth: int = 2) -> Generator[T, None, None]:
    """The same items, made in a thread of their own, at most `depth` of them waiting.

    What is raised while making them is raised here. When this iterator is closed, the thread has ended and `items` is
    closed too.
    """
    queue: Queue[object] = Queue(maxsize=depth)
    stop = Event()
    failure: list[BaseException] = []

    def work() -> None:
        try:
            for item in items:
                queue.put(item)
                if stop.is_set():
                    break
        except BaseException as error:
            failure.append(error)
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()
            queue.put(_END)

    thread = Thread(target=work, daemon=True)
    thread.start()
    try:
        while (item := queue.get()) is not _END:
            yield item  # type: ignore[misc]  # everything but the end marker is a T
        if failure:
            raise failure[0]
    finally:
        stop.set()
        while thread.is_alive():
            try:
                queue.get(timeout=0.02)
            except Empty:
                continue
