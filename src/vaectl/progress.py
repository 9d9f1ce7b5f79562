"""How a job tells what it is doing, without knowing whether anybody looks.

Jobs take a `Progress`; the CLI gives them one that draws bars, notebooks and tests may give `Silent`.
"""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the story of a run. Calls come from one thread, in order."""

    def start(self, name: str, frames: int | None) -> None:
        """A clip called `name` begins; `frames` is its number of frames, None while unknown."""

    def advance(self, frames: int) -> None:
        """That many more frames of the clip are finished."""

    def finish(self) -> None:
        """The clip is complete, or was given up."""

    def note(self, message: str) -> None:
        """How something is done, for those who want to know. One line."""

    def warn(self, message: str) -> None:
        """Something that the user should know; the run goes on. One line."""


class Silent:
    """A `Progress` that nobody looks at."""

    def start(self, name: str, frames: int | None) -> None: ...

    def advance(self, frames: int) -> None: ...

    def finish(self) -> None: ...

    def note(self, message: str) -> None: ...

    def warn(self, message: str) -> None: ...
