"""Ctrl-C, SIGTERM and SIGHUP in training: the run finishes its step and saves; a second signal ends it at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from vaectl.io.terminal import leave_lost_terminal

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """The signal that asked the run to stop, None if there was none."""

    signal: int | None = None


@contextmanager
def finishing_the_step() -> Iterator[Interruption]:
    """Record the first stop signal inside the block, and raise it again at the end of the block.

    Ignored signals stay ignored: background jobs ignore Ctrl-C, and nohup ignores SIGHUP.
    """
    interruption = Interruption()
    numbers = [n for n in STOPPING if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _frame: FrameType | None) -> None:
        interruption.signal = number
        leave_lost_terminal()
        restore()

    for number in numbers:
        signal.signal(number, note)
    try:
        yield interruption
    finally:
        restore()
    if interruption.signal is not None:
        signal.raise_signal(interruption.signal)
