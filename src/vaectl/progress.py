"""How a job tells what it is doing, without knowing whether anybody looks.

Jobs take a `Progress`; the CLI gives them one that draws bars, notebooks and tests may give `Silent`.
"""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the story of a run. Calls come from one thread, in order; status, notes and warnings from any."""

    def start(self, name: str, total: int | None, unit: str = "frames", done: int = 0) -> None:
        """Something called `name` begins, mostly a clip; `total` is its number of frames, None while unknown.

        `unit` is what is counted, where that is not frames; `done` of them were finished before.
        """

    def advance(self, count: int) -> None:
        """That many more of them are finished."""

    def status(self, message: str) -> None:
        """How things stand now, in one line; it holds until the next one, or until the end."""

    def finish(self) -> None:
        """The clip is complete, or was given up."""

    def note(self, message: str) -> None:
        """How something is done, for those who want to know. One line."""

    def warn(self, message: str) -> None:
        """Something that the user should know; the run goes on. One line."""


class Silent:
    """A `Progress` that nobody looks at."""

    def start(self, name: str, total: int | None, unit: str = "frames", done: int = 0) -> None: ...

    def advance(self, count: int) -> None: ...

    def status(self, message: str) -> None: ...

    def finish(self) -> None: ...

    def note(self, message: str) -> None: ...

    def warn(self, message: str) -> None: ...
