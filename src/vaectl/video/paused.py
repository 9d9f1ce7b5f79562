"""A pass over a video that has given its frames, and that the next pass may continue instead of seeking.

While it is paused, its file and its decoder stay open, and FFmpeg's messages are captured (`vaectl.video.messages`),
because decode threads may still work ahead. Knows no pixels and no index.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Generator
from typing import NamedTuple
from weakref import WeakSet

from av.video.frame import VideoFrame

from vaectl.video.file_cache import Identity


class Pass(NamedTuple):
    """Numbered frames of a file, in order."""

    file: Identity | None
    number: int
    """Of the next frame."""
    frames: Generator[tuple[int, VideoFrame]]


class PausedPass:
    """Holds one pass or none. Several threads may use it. A copy by pickle, and that of a forked process, is empty."""

    def __init__(self) -> None:
        self._held: list[Pass] = []
        _instances.add(self)

    def __reduce__(self) -> tuple[type[PausedPass], tuple[()]]:
        return PausedPass, ()

    def put(self, paused: Pass) -> None:
        """Hold `paused`, and close another one."""
        self.close()
        self._held.append(paused)

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
            return self._held.pop()
        except IndexError:
            return None


_instances: WeakSet[PausedPass] = WeakSet()


def _abandon() -> None:
    """Leak the passes of the parent process: a fork shares their file position, and closing waits for their threads."""
    for each in _instances:
        while (held := each._pop()) is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon)
