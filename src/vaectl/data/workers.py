"""Processes that read samples from videos.

They are forked from a server process that has imported all modules, so they start at once. They have no state: tasks
and results go through a pipe, and a worker ends when the pipe is closed. Knows nothing of epochs and batches.
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

_TERMINAL_SIGNALS = frozenset({signal.SIGINT, signal.SIGHUP})


@dataclass(frozen=True)
class Task:
    """The arguments of `ClipReader.read`."""

    path: Path
    sampling: Sampling
    draw: Draw


@dataclass(frozen=True)
class Result:
    """The result of a task."""

    seconds: float
    """The time that it took."""
    problem: str | None
    """Why there is no sample; None if there is one."""


class WorkerDiedError(Exception):
    """A worker died; the message says how."""


class Worker:
    """A process that does one task at a time."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self.connection, theirs = context.Pipe()
        # Ctrl-C in a terminal goes to all processes, but only the main process handles it. New processes inherit the
        # mask. The resource tracker of multiprocessing clears the mask when it starts, so it is started before.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _TERMINAL_SIGNALS)
        try:
            self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    def give(self, task: Task) -> None:
        """Start `task`. `connection` becomes readable when the task is done or the worker is dead."""
        with suppress(OSError):  # the worker died; `take` reports it
            self.connection.send(task)

    def take(self, into: NDArray[np.uint8]) -> Result:
        """Return the result, and write the sample into the contiguous array `into`. Raises WorkerDiedError."""
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
        """Kill the process."""
        self._process.kill()
        self._process.join()
        self.connection.close()


def _serve(connection: Connection) -> None:
    """Do tasks until the connection is closed. Runs in the worker process."""
    for number in _TERMINAL_SIGNALS:  # if another library started the server, the mask is not inherited
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    reader = ClipReader()
    with suppress(EOFError, OSError):  # the main process has ended
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
