"""The output of a run on stderr: progress, finished clips, warnings, errors.

On a terminal, a bar for the run and one for the current clip; elsewhere, sparse lines. Knows nothing of frames and
models.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.cells import cell_len
from rich.console import Console
from rich.progress import TaskID
from rich.text import Text

from vaectl.cli import garbage, interruption
from vaectl.cli.bars import Bars, duration, pace
from vaectl.cli.spelling import spell_options
from vaectl.cli.tables import MIN_NAME, printable, shorten
from vaectl.progress import Progress

FIRST_LINES_SECONDS = (5.0, 15.0, 30.0)
"""When the first lines appear after the start, if stderr is not a terminal."""
LINE_INTERVAL_SECONDS = 60.0
"""Least time between two later lines."""


def say(label: str, message: str, console: Console | None = None) -> None:
    """Write `label: message` as one line on stderr, however wide the terminal is."""
    style = {"error": "bold red", "warning": "yellow"}.get(label, "bold")
    line = Text.assemble((f"{printable(label)}: ", style), one_line(message))
    (console or Console(stderr=True)).print(line, soft_wrap=True)


def one_line(message: str) -> str:
    return printable(" ".join(spell_options(message).split()))


@contextmanager
def reporter() -> Iterator[Progress]:
    """Yield the `Progress` of a run; restore the terminal at the end, also after an error."""
    interruption.check()  # all libraries of this run are loaded now
    garbage.collect()
    console = Console(stderr=True)
    progress = _Bar(console) if console.is_interactive else _Lines(console)
    try:
        yield progress
    finally:
        progress.close()


class _Output(ABC):
    """Notes and warnings, each text once; and a line for each finished clip of a run over several."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said: set[tuple[str, str]] = set()
        self._clips = self._ended = self._made = 0
        self._share = ""
        self._run_begun = self._last_end = 0.0

    def facts(self, rows: Sequence[tuple[str, str]]) -> None:
        width = max(len(name) for name, _ in rows) + 2
        for name, value in rows:
            self._console.print(Text.assemble((f"{name:<{width}}", "bold"), one_line(value)), soft_wrap=True)

    def note(self, message: str) -> None:
        self._say_once("note", message)

    def warn(self, message: str) -> None:
        self._say_once("warning", message)

    def _say_once(self, label: str, message: str) -> None:
        if (label, message) not in self._said:
            self._said.add((label, message))
            say(label, message, self._console)

    def start_clips(self, total: int, done: int = 0, share: str = "") -> None:
        self._clips, self._ended, self._made, self._share = total, done, 0, share
        self._run_begun = self._last_end = time.monotonic()

    def end_clip(self, name: str, result: str, *, failed: bool = False) -> None:
        self._ended += 1
        self._made += not failed
        self._last_end = time.monotonic()
        if self._clips > 1:
            count = self._count() + " "
            rest = one_line(result) if failed else self._finished(count, printable(name), result)
            failure = ("failed: " if failed else "", "bold red")
            self._console.print(Text.assemble((count, "bold"), failure, rest), soft_wrap=True)

    def _count(self) -> str:
        return f"{self._share}{': ' if self._share else ''}{self._ended}/{self._clips}"

    @abstractmethod
    def close(self) -> None:
        """Remove what is shown of the run."""

    @abstractmethod
    def _finished(self, count: str, name: str, result: str) -> str:
        """Return the line of a finished clip after its `count`."""

    @abstractmethod
    def _task_left(self) -> float:
        """Return the seconds left for the current task; 0 if unknown."""

    def _left(self) -> float | None:
        """Return the seconds left for all clips; None before a clip is finished, and after the last one.

        The mean of the finished clips holds for the others, and counts down. The current clip may take longer.
        """
        remaining = self._clips - self._ended
        if not self._made or remaining < 1:
            return None
        mean = (self._last_end - self._run_begun) / self._made
        passed = time.monotonic() - self._last_end
        return max(mean * remaining - passed, mean * (remaining - 1) + self._task_left())


class _Bar(_Output):
    """A bar for all clips if there are several, and one for the current task."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._bars: Bars | None = None
        self._all: TaskID | None = None
        self._task: TaskID | None = None

    def start_clips(self, total: int, done: int = 0, share: str = "") -> None:
        super().start_clips(total, done, share)
        self.close()
        self._bars = Bars(self._console)
        name = f"clips of {share}" if share else "clips"
        self._all = self._bars.add_task(name, total=total, completed=done, left=self._left)

    def end_clip(self, name: str, result: str, *, failed: bool = False) -> None:
        super().end_clip(name, result, failed=failed)
        if self._bars and self._all is not None:
            self._bars.message = ""
            self._bars.update(self._all, completed=self._ended)

    def start(self, name: str, total: int | None, unit: str = "frames", done: int = 0) -> None:
        self.finish()
        if not self._clips:
            self._bars = Bars(self._console)
        if self._bars:
            self._task = self._bars.add_task(printable(name), total=total, completed=done, unit=unit)
        self._show_all(self._clips > 1)

    def advance(self, count: int) -> None:
        if self._bars and self._task is not None:
            self._bars.advance(self._task, count)

    def status(self, message: str) -> None:
        if self._bars:
            self._bars.message = one_line(message)

    def finish(self) -> None:
        if not self._clips:
            self.close()
        elif self._bars and self._task is not None:
            self._bars.message = ""
            self._bars.remove_task(self._task)
            self._task = None
            self._show_all(True)

    def close(self) -> None:
        if self._bars:
            self._bars.close()
            self._bars = self._task = self._all = None

    def _show_all(self, visible: bool) -> None:
        if self._bars and self._all is not None:
            self._bars.update(self._all, visible=visible)

    def _finished(self, count: str, name: str, result: str) -> str:
        room = self._console.width - cell_len(f"{count}: {result}")
        return f"{shorten(name, max(room, MIN_NAME))}: {result}"

    def _task_left(self) -> float:
        tasks = {task.id: task for task in self._bars.tasks} if self._bars else {}
        return tasks[self._task].time_remaining or 0.0 if self._task in tasks else 0.0


class _Lines(_Output):
    """A line for what has advanced: soon after the start, later once a minute."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._name: str | None = None
        self._message = ""

    def start_clips(self, total: int, done: int = 0, share: str = "") -> None:
        super().start_clips(total, done, share)
        self._first = self._last = self._run_begun

    def start(self, name: str, total: int | None, unit: str = "frames", done: int = 0) -> None:
        self._name, self._total, self._unit = name, total, unit
        self._before = self._done = self._spoken = done
        self._message = ""
        self._begun = time.monotonic()
        if self._clips < 2:
            self._first = self._last = self._begun

    def status(self, message: str) -> None:
        if message != self._message and (self._clips or self._name is not None):
            self._message = message
            self._speak_at_times()

    def advance(self, count: int) -> None:
        self._done += count
        self._speak_at_times()

    def finish(self) -> None:
        if self._clips < 2 and self._name is not None and self._before < self._spoken < self._done:
            self._speak()
        self._name = None

    close = finish

    def _speak_at_times(self) -> None:
        first = (self._first + seconds for seconds in FIRST_LINES_SECONDS)
        due = next((at for at in first if at > self._last), self._last + LINE_INTERVAL_SECONDS)
        if time.monotonic() >= due:
            self._speak()

    def _speak(self) -> None:
        self._last = time.monotonic()
        if self._name is None:
            say(f"{self._count()} clips", self._message, self._console)
            return
        self._spoken = self._done
        seconds = self._last - self._begun
        total = "" if self._total is None else f"/{self._total}"
        made, left = self._done - self._before, self._task_left()
        rest = f", {duration(left)} left" if left > 0 else f" in {duration(seconds)}"
        speed = f", {pace(made / seconds, self._unit)}{rest}" if made else ""
        of_all = "" if (run := self._left()) is None else f", {duration(run)} left for all clips"
        message = f", {self._message}" if self._message else ""
        say(str(self._name), f"{self._done}{total} {self._unit}{speed}{of_all}{message}", self._console)

    def _finished(self, count: str, name: str, result: str) -> str:
        self._last = self._last_end
        return f"{name}: {result}" + ("" if (left := self._left()) is None else f"; {duration(left)} left")

    def _task_left(self) -> float:
        made = self._done - self._before if self._name is not None else 0
        if not made or self._total is None:
            return 0.0
        return (self._total - self._done) * (time.monotonic() - self._begun) / made
