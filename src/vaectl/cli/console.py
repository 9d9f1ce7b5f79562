"""The output of a run on stderr: progress, warnings, errors.

On a terminal, a bar for the current clip; elsewhere, a line every few seconds. Knows nothing of frames and models.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from threading import Timer

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from vaectl.cli import interruption
from vaectl.cli.spelling import spell_options
from vaectl.progress import Progress

BAR_DELAY_SECONDS = 2.0
"""How long a clip may take before its bar appears."""
LINE_INTERVAL_SECONDS = 5.0
"""Time between two lines if stderr is not a terminal."""


def say(label: str, message: str, console: Console | None = None) -> None:
    """Write `label: message` as one line on stderr, however wide the terminal is."""
    style = {"error": "bold red", "warning": "yellow"}.get(label, "bold")
    line = Text.assemble((f"{label}: ", style), printable(message))
    (console or Console(stderr=True)).print(line, soft_wrap=True)


def printable(message: str) -> str:
    """Return a message as one line of printable text, with its parameters as options."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in " ".join(spell_options(message).split())
    )


def pace(per_second: float, unit: str = "frames") -> str:
    """Format a speed above 0; `unit` is a plural."""
    return f"{per_second:.1f} {unit}/s" if per_second >= 1 else f"{1 / per_second:.1f} s/{unit.removesuffix('s')}"


@contextmanager
def reporter() -> Iterator[Progress]:
    """Yield the `Progress` of a run; restore the terminal at the end, also after an error."""
    interruption.check()  # all libraries of this run are loaded now
    console = Console(stderr=True)
    progress: Progress = _Bar(console) if console.is_interactive else _Lines(console)
    try:
        yield progress
    finally:
        progress.finish()


class _Remarks:
    """Notes and warnings; each text is shown once."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said: set[tuple[str, str]] = set()

    def facts(self, rows: Sequence[tuple[str, str]]) -> None:
        width = max(len(name) for name, _ in rows) + 2
        for name, value in rows:
            self._console.print(Text.assemble((f"{name:<{width}}", "bold"), printable(value)), soft_wrap=True)

    def note(self, message: str) -> None:
        self._say_once("note", message)

    def warn(self, message: str) -> None:
        self._say_once("warning", message)

    def _say_once(self, label: str, message: str) -> None:
        if (label, message) not in self._said:
            self._said.add((label, message))
            say(label, message, self._console)


class _Bar(_Remarks):
    """A bar for the current clip, removed when the clip is finished."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._timer: Timer | None = None

    def start(self, name: str, total: int | None, unit: str = "frames", done: int = 0) -> None:
        self.finish()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
        )
        self._bar = _WithStatus(*columns, console=self._console, transient=True)
        self._task = self._bar.add_task(escape(name), total=total, completed=done, unit=unit)
        self._timer = Timer(BAR_DELAY_SECONDS, self._bar.start)
        self._timer.daemon = True
        self._timer.start()

    def advance(self, count: int) -> None:
        self._bar.advance(self._task, count)

    def status(self, message: str) -> None:
        self._bar.message = spell_options(message)

    def finish(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer.join()
            self._bar.stop()
            self._timer = None


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(pace(task.speed, task.fields["unit"]) if task.speed else "", style="progress.data.speed")


class _WithStatus(RichProgress):
    """Bars, and the status below them."""

    message = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.message:
            yield Text(self.message, style="dim", overflow="ellipsis", no_wrap=True)


class _Lines(_Remarks):
    """A line every `LINE_INTERVAL_SECONDS`, and a last one for a clip that had any."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._name: str | None = None

    def start(self, name: str, total: int | None, unit: str = "frames", done: int = 0) -> None:
        self._name, self._total, self._unit = name, total, unit
        self._before = self._done = self._spoken = done
        self._message = ""
        self._begun = self._last = time.monotonic()

    def status(self, message: str) -> None:
        self._message = f", {message}"
        self._speak_at_times()

    def advance(self, count: int) -> None:
        self._done += count
        self._speak_at_times()

    def finish(self) -> None:
        if self._name is not None and self._before < self._spoken < self._done:
            self._speak()
        self._name = None

    def _speak_at_times(self) -> None:
        if time.monotonic() - self._last >= LINE_INTERVAL_SECONDS:
            self._speak()

    def _speak(self) -> None:
        self._last, self._spoken = time.monotonic(), self._done
        seconds = self._last - self._begun
        total = "" if self._total is None else f"/{self._total}"
        made = self._done - self._before
        left = 0.0 if self._total is None else (self._total - self._done) * seconds / max(made, 1)
        rest = f", {timedelta(seconds=round(left))} left" if left > 0 else f" in {timedelta(seconds=round(seconds))}"
        speed = f", {pace(made / seconds, self._unit)}{rest}" if made else ""
        say(str(self._name), f"{self._done}{total} {self._unit}{speed}{self._message}", self._console)
