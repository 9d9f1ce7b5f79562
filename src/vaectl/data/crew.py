"""Workers who fill batches together: one takes over where another died, one video stands in for another.

Since a sample follows from its number, it does not matter who makes it, or how often it is begun. Knows nothing of the
order in which batches are wanted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType

import torch

from vaectl.data.dataset import ClipDataset, Failures, replaced
from vaectl.data.workers import Order, Worker, WorkerDiedError
from vaectl.errors import VaectlError

_DEADLY = 3
"""Workers that may die of one video before another stands in for it."""
_PATIENCE = 10
"""Workers that may die in a row, with no sample finished in between."""


class Unfinished:
    """A batch that is being filled."""

    def __init__(self, numbers: Sequence[int], num_frames: int, side: int) -> None:
        self.numbers = numbers
        self.frames = torch.empty((len(numbers), num_frames, 3, side, side), dtype=torch.uint8)
        self.missing = len(numbers)
        self.notes: list[str] = []


@dataclass(eq=False)
class _Task:
    """A sample that is to be made, and its place in a batch."""

    batch: Unfinished
    place: int
    number: int
    failures: Failures = field(default_factory=Failures)
    deaths: int = 0


class Crew:
    """Fills batches with samples of `dataset`, in a context that ends all workers when it is left."""

    frames = 0
    seconds = 0.0
    """Frames of the samples made so far, and what they took, added up over the workers."""

    def __init__(self, dataset: ClipDataset, workers: int) -> None:
        self._dataset, self._workers = dataset, workers
        self._tasks: deque[_Task] = deque()
        self._idle: list[Worker] = []
        self._busy: dict[Connection, tuple[Worker, _Task, Path]] = {}
        self._deaths = 0

    def __enter__(self) -> Crew:
        self._idle = [Worker() for _ in range(self._workers)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in (*self._idle, *(worker for worker, _, _ in self._busy.values())):
            worker.stop()

    @property
    def has_time(self) -> bool:
        """Whether there are workers with nothing to do."""
        return len(self._tasks) < len(self._idle)

    def fill(self, batch: Unfinished) -> None:
        """Take on a batch; those that were taken on before come first."""
        self._tasks += [_Task(batch, place, number) for place, number in enumerate(batch.numbers)]

    def work(self, leaving: Connection) -> bool:
        """Give out what is to be done, and wait until some of it is; False when `leaving` becomes readable instead.

        Raises VaectlError where nothing can be read any more, or where workers die one after the other.
        """
        while self._tasks and self._idle:
            task = self._tasks.popleft()
            path = self._dataset.path(task.number, task.failures)
            worker = self._idle.pop()
            self._busy[worker.connection] = worker, task, path
            worker.give(Order(path, self._dataset.sampling, self._dataset.draw(task.number)))
        for connection in wait([leaving, *self._busy]):
            if connection is leaving:
                return False
            assert isinstance(connection, Connection)
            worker, task, path = self._busy.pop(connection)
            try:
                self._take(worker, task, path)
                self._idle.append(worker)
            except WorkerDiedError as death:
                worker.stop()
                self._mourn(task, path, str(death))
                self._idle.append(Worker())
        return True

    def _take(self, worker: Worker, task: _Task, path: Path) -> None:
        outcome = worker.take(task.batch.frames[task.place].numpy())
        self._deaths = 0
        self.seconds += outcome.seconds
        if outcome.problem is not None:
            self._begin_anew(task, outcome.problem)
            return
        self.frames += task.batch.frames.shape[1]
        task.batch.missing -= 1
        if note := replaced(task.failures, path):
            task.batch.notes.append(note)

    def _mourn(self, task: _Task, path: Path, cause: str) -> None:
        self._deaths += 1
        task.deaths += 1
        what = f"a data worker died ({cause}) while it read {path}"
        if self._deaths >= _PATIENCE:
            raise VaectlError(f"{what}, the {_PATIENCE}th in a row; if memory is short, take fewer --num-workers")
        if task.deaths == _DEADLY:
            task.deaths = 0
            self._begin_anew(task, f"{path}: {_DEADLY} data workers died in reading it ({cause})")
        else:
            task.batch.notes.append(f"{what}; another goes on in its place")
            self._tasks.appendleft(task)

    def _begin_anew(self, task: _Task, problem: str) -> None:
        task.failures = task.failures.and_one(problem)
        self._tasks.appendleft(task)
