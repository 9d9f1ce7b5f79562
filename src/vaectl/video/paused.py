"""A pass over a video that has given its frames, and that the next pass may continue instead of seeking.

While it is paused, its file and its decoder stay open, but FFmpeg's messages are not captured
(`vaectl.video.messages`). Only decode threads, which work ahead, are heard for a moment longer. Knows no pixels and no
index.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Generator
from typing import NamedTuple
from weakref import WeakSet

from av.video.frame import VideoFrame

from vaectl.video.file_cache import Identity
from vaectl.video.messages import Interruption
from vaectl.video.wanted import Wanted

DECODE_AHEAD_SECONDS = 1.0
"""After this time, decode threads are taken to have finished the packets that they have. FFmpeg does not say when."""


class Pass(NamedTuple):
    """Numbered frames of a file, in order."""

    file: Identity | None
    number: int
    """Of the next frame."""
    frames: Generator[tuple[int, VideoFrame]]
    wanted: Wanted
    """The frames that `frames` yields."""


class PausedPass:
    """Holds one pass or none. Several threads may use it. A copy by pickle, and that of a forked process, is empty."""

    def __init__(self) -> None:
        self._held: list[tuple[Pass, Interruption]] = []
        _instances.add(self)

    def __reduce__(self) -> tuple[type[PausedPass], tuple[()]]:
        return PausedPass, ()

    def __del__(self) -> None:
        self.close()

    def put(self, paused: Pass, *, threads: int) -> None:
        """Hold `paused`, which has this number of decode threads, and close another one."""
        self.close()
        self._held.append((paused, Interruption(0 if threads == 1 else DECODE_AHEAD_SECONDS)))

    def take(self, file: Identity | None, earliest: int, latest: int) -> Pass | None:
        """Return the pass if it is one of `file` and its next number is in the range. Close it otherwise."""
        held = self._pop()
        if held is None or (held.file == file and earliest <= held.number <= latest):
            return held
        held.frames.close()
        return None

    def close(self) -> None:
        """Close the pass, if there is one."""
        if (held := self._pop()) is not None:
            held.frames.close()

    def _pop(self) -> Pass | None:
        try:
            held, interruption = self._held.pop()
        except IndexError:
            return None
        interruption.end()
        return held


_instances: WeakSet[PausedPass] = WeakSet()


def _abandon() -> None:
    """Leak the passes of the parent process: a fork shares their file position, and closing waits for their threads."""
    for each in _instances:
        while each._held:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(each._held.pop()))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon)
