"""Ctrl-C, SIGTERM and SIGHUP in a training run: the step at hand is finished and saved; a second ends it at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from vaectl.io.terminal import leave_lost_terminal

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """Which signal asked the run to stop; None while none has."""

    signal: int | None = None


@contextmanager
def finishing_the_step() -> Iterator[Interruption]:
    """Inside, the first signal that stops a run is only noted, and does what it did before when the block ends.

    Ignored signals stay ignored: Ctrl-C is not meant for jobs in the background, nor SIGHUP for those under nohup.
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
