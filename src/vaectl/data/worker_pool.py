"""A pool of worker processes that fill batches. It replaces workers that die and videos that cannot be read.

A sample depends only on its number, so any worker can make it, and it can be restarted. Does not know the order of
batches.
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
from vaectl.data.workers import Task, Worker, WorkerDiedError
from vaectl.errors import VaectlError

_MAX_DEATHS_PER_VIDEO = 3
"""Workers that may die while reading one video before the video is replaced."""
_MAX_DEATHS_IN_A_ROW = 10
"""Workers that may die in a row, without a finished sample in between."""


class PendingBatch:
    """A batch that is not yet complete."""

    def __init__(self, numbers: Sequence[int], num_frames: int, side: int) -> None:
        self.numbers = numbers
        self.frames = torch.empty((len(numbers), num_frames, 3, side, side), dtype=torch.uint8)
        self.missing = len(numbers)
        self.notes: list[str] = []


@dataclass(eq=False)
class _PendingSample:
    """A sample that is not yet made, and its position in a batch."""

    batch: PendingBatch
    place: int
    number: int
    failures: Failures = field(default_factory=Failures)
    deaths: int = 0


class WorkerPool:
    """Fills batches with samples of `dataset`. Leaving the context stops all workers."""

    num_frames = 0
    seconds = 0.0
    """Frames of the samples made so far, and the seconds that they took, summed over the workers."""

    def __init__(self, dataset: ClipDataset, workers: int) -> None:
        self._dataset, self._workers = dataset, workers
        self._pending: deque[_PendingSample] = deque()
        self._idle: list[Worker] = []
        self._busy: dict[Connection, tuple[Worker, _PendingSample, Path]] = {}
        self._deaths = 0

    def __enter__(self) -> WorkerPool:
        self._idle = [Worker() for _ in range(self._workers)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in (*self._idle, *(worker for worker, _, _ in self._busy.values())):
            worker.stop()

    @property
    def has_idle_workers(self) -> bool:
        """Return whether more workers are idle than samples are waiting."""
        return len(self._pending) < len(self._idle)

    def fill(self, batch: PendingBatch) -> None:
        """Queue the samples of a batch."""
        self._pending += [_PendingSample(batch, place, number) for place, number in enumerate(batch.numbers)]

    def work(self, leaving: Connection) -> bool:
        """Give tasks to idle workers and wait for results. Return False if `leaving` becomes readable.

        Raises VaectlError if no video can be read, or if workers die in a row.
        """
        while self._pending and self._idle:
            sample = self._pending.popleft()
            path = self._dataset.path(sample.number, sample.failures)
            worker = self._idle.pop()
            self._busy[worker.connection] = worker, sample, path
            worker.give(Task(path, self._dataset.sampling, self._dataset.draw(sample.number)))
        for connection in wait([leaving, *self._busy]):
            if connection is leaving:
                return False
            assert isinstance(connection, Connection)
            worker, sample, path = self._busy.pop(connection)
            try:
                self._take(worker, sample, path)
                self._idle.append(worker)
            except WorkerDiedError as death:
                worker.stop()
                self._on_worker_death(sample, path, str(death))
                self._idle.append(Worker())
        return True

    def _take(self, worker: Worker, sample: _PendingSample, path: Path) -> None:
        result = worker.take(sample.batch.frames[sample.place].numpy())
        self._deaths = 0
        self.seconds += result.seconds
        if result.problem is not None:
            self._retry(sample, result.problem)
            return
        self.num_frames += sample.batch.frames.shape[1]
        sample.batch.missing -= 1
        if note := replaced(sample.failures, path):
            sample.batch.notes.append(note)

    def _on_worker_death(self, sample: _PendingSample, path: Path, cause: str) -> None:
        self._deaths += 1
        sample.deaths += 1
        what = f"a data worker died ({cause}) while reading {path}"
        if self._deaths >= _MAX_DEATHS_IN_A_ROW:
            raise VaectlError(
                f"{what}, the {_MAX_DEATHS_IN_A_ROW}th in a row", "if memory is short, lower `num_workers`"
            )
        if sample.deaths == _MAX_DEATHS_PER_VIDEO:
            sample.deaths = 0
            self._retry(sample, f"{path}: {_MAX_DEATHS_PER_VIDEO} data workers died while reading it ({cause})")
        else:
            sample.batch.notes.append(f"{what}; a new one replaces it")
            self._pending.appendleft(sample)

    def _retry(self, sample: _PendingSample, problem: str) -> None:
        sample.failures = sample.failures.and_one(problem)
        self._pending.appendleft(sample)
