"""Processes that read samples out of videos.

They are forked from a process that has imported all that they need, so that a new one is there at once. They hold no
state: tasks and results go through a pipe, and a worker ends when the other end is closed. Knows nothing
of epochs and batches.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vaectl.data.clip_reader import ClipReader
from vaectl.data.sampling import Draw, Sampling
from vaectl.errors import VaectlError

_OF_THE_TERMINAL = frozenset({signal.SIGINT, signal.SIGHUP})


@dataclass(frozen=True)
class Task:
    """What a worker has to do: the arguments of `ClipReader.read`."""

    path: Path
    sampling: Sampling
    draw: Draw


@dataclass(frozen=True)
class Result:
    """The result of a task."""

    seconds: float
    """Spent on it."""
    problem: str | None
    """Why there is no sample; None where there is one."""


class WorkerDiedError(Exception):
    """The message says of what."""


class Worker:
    """One process; does one task at a time."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self.connection, theirs = context.Pipe()
        # Ctrl-C in a terminal goes to all processes, but is for us to answer. What is started here inherits the mask;
        # multiprocessing's own helper lifts it as it starts, so that comes first.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_THE_TERMINAL)
        try:
            self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    def give(self, task: Task) -> None:
        """Begin with `task`. `connection` becomes readable when it is done, or the worker is dead."""
        with suppress(OSError):  # it died in its sleep, as `take` will find
            self.connection.send(task)

    def take(self, into: NDArray[np.uint8]) -> Result:
        """Give the result of the task; its sample goes into the contiguous array. Raises WorkerDiedError."""
        try:
            result: Result = self.connection.recv()
            if result.problem is None:
                self.connection.recv_bytes_into(into.data.cast("B"))
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode or 0
            raise WorkerDiedError(f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}") from None
        return result

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.join()
        self.connection.close()


def _serve(connection: Connection) -> None:
    """The life of a worker."""
    for number in _OF_THE_TERMINAL:  # where the mask is not inherited: another library started the server
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    reader = ClipReader()
    with suppress(EOFError, OSError):  # the process that gives the tasks is gone
        while True:
            task: Task = connection.recv()
            begun = time.perf_counter()
            try:
                frames = reader.read(task.path, task.sampling, task.draw)
            except VaectlError as error:
                connection.send(Result(time.perf_counter() - begun, str(error)))
            else:
                connection.send(Result(time.perf_counter() - begun, None))
                connection.send_bytes(frames.numpy().data.cast("B"))
