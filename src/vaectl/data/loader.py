"""Batches of samples in order, made by worker processes in advance. Knows nothing of videos."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import count
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import TracebackType

import torch
from torch import Tensor

from vaectl.data.dataset import ClipDataset
from vaectl.data.worker_pool import PendingBatch, WorkerPool
from vaectl.prefetch import prefetch


@dataclass(frozen=True)
class Batch:
    """A batch of samples."""

    frames: Tensor
    """(B, T, 3, H, W) uint8 RGB."""
    numbers: Sequence[int]
    notes: tuple[str, ...]
    """A line for each video that was replaced and each worker that died."""


class ClipLoader:
    """The batches of one rank, without end. Iterate once, inside its context.

    Leaving the context stops all workers.
    """

    waited = 0.0
    """Seconds spent waiting for batches, without the first one, for which the workers have to start."""
    decoded_frames = 0
    decode_seconds = 0.0
    """Frames read so far, and the seconds for reading and resizing them, summed over the workers."""

    def __init__(
        self,
        dataset: ClipDataset,
        numbers: Callable[[int], Sequence[int]],
        *,
        first: int,
        workers: int,
        prefetch: int = 2,
    ) -> None:
        """Load batches `first`, `first` + 1, ...; batch k has the samples `numbers(k)`.

        `workers`: number of processes; 0 reads in this process, without prefetching. `prefetch`: batches that may wait.
        """
        self._dataset, self._numbers, self._first = dataset, numbers, first
        self._workers, self._prefetch = workers, prefetch

    def __enter__(self) -> ClipLoader:
        with ExitStack() as resources:
            if self._workers:
                leaving, leave = Pipe(duplex=False)
                resources.callback(leaving.close)
                self._batches = resources.enter_context(prefetch(self._made_by_workers(leaving), self._prefetch))
                resources.callback(leave.close)
            else:
                self._batches = resources.enter_context(closing(self._made_here()))
            self._resources = resources.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.__exit__(kind, error, trace)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches. Raises VaectlError if no video can be read, or if workers die in a row."""
        yield next(self._batches)
        while True:
            begun = time.perf_counter()
            batch = next(self._batches)
            self.waited += time.perf_counter() - begun
            yield batch

    def _made_here(self) -> Generator[Batch]:
        for k in count(self._first):
            numbers = self._numbers(k)
            begun = time.perf_counter()
            samples = [self._dataset.clip(number) for number in numbers]
            self.decode_seconds += time.perf_counter() - begun
            self.decoded_frames += sum(len(sample.frames) for sample in samples)
            notes = tuple(sample.replaced for sample in samples if sample.replaced)
            yield Batch(torch.stack([sample.frames for sample in samples]), numbers, notes)

    def _made_by_workers(self, leaving: Connection) -> Generator[Batch]:
        """Yield batches until the other end of `leaving` is closed."""
        pending: deque[PendingBatch] = deque()
        upcoming = map(self._numbers, count(self._first))
        sampling = self._dataset.sampling
        with WorkerPool(self._dataset, self._workers) as pool:
            while True:
                while pool.has_idle_workers and len(pending) <= self._workers:
                    pending.append(PendingBatch(next(upcoming), sampling.num_frames, sampling.side))
                    pool.fill(pending[-1])
                if not pool.work(leaving):
                    return
                self.decoded_frames, self.decode_seconds = pool.num_frames, pool.seconds
                while pending and not pending[0].missing:
                    batch = pending.popleft()
                    yield Batch(batch.frames, batch.numbers, tuple(batch.notes))
