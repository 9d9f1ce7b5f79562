"""How a job reports its progress, without knowing how it is shown.

Jobs take a `Progress`. The CLI passes one that draws bars; notebooks and tests can pass `Silent`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Protocol


class Progress(Protocol):
    """Receives the progress of a run: tasks, one after the other, and the clips of a run over several clips.

    Any thread may call any method. A clip may end in one thread while another thread works on the task of the next.
    """

    def start_clips(self, total: int, done: int = 0, share: str = "") -> None:
        """Start a run over `total` clips, `done` of which an earlier run finished.

        `share` names the process if these are only its part of all clips.
        """

    def end_clip(self, name: str, result: str, *, failed: bool = False) -> None:
        """Show the result of a clip of the run: its figures; or the error message, which names the clip. One line."""

    def start(self, name: str, total: int | None, unit: str = "frames", done: int = 0) -> None:
        """Start a task called `name`, usually a clip, of `total` units; None if that is unknown.

        `unit` is a plural; `done` units are already finished.
        """

    def advance(self, count: int) -> None:
        """Add `count` finished units."""

    def status(self, message: str) -> None:
        """Show the current state in one line, until the next call or the end of the task."""

    def finish(self) -> None:
        """End the task, complete or not."""

    def facts(self, rows: Sequence[tuple[str, str]]) -> None:
        """Show what a run is about to do: names and values, one pair a line."""

    def note(self, message: str) -> None:
        """Show how something is done. One line."""

    def warn(self, message: str) -> None:
        """Warn the user; the run continues. One line."""


class Silent:
    """A `Progress` that shows nothing."""

    def start_clips(self, total: int, done: int = 0, share: str = "") -> None: ...

    def end_clip(self, name: str, result: str, *, failed: bool = False) -> None: ...

    def start(self, name: str, total: int | None, unit: str = "frames", done: int = 0) -> None: ...

    def advance(self, count: int) -> None: ...

    def status(self, message: str) -> None: ...

    def finish(self) -> None: ...

    def facts(self, rows: Sequence[tuple[str, str]]) -> None: ...

    def note(self, message: str) -> None: ...

    def warn(self, message: str) -> None: ...


class Warnings(Silent):
    """A `Progress` that shows only warnings, as Python does."""

    def warn(self, message: str) -> None:
        warnings.warn(message, stacklevel=2)
