"""Bars on a terminal: a row for each task, as wide as the terminal allows. Knows nothing of runs and clips."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Timer

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task
from rich.table import Column, Table
from rich.text import Text

from vaectl.cli.tables import Name

BAR_DELAY_SECONDS = 2.0
"""How long a task may take before its bar appears."""


def pace(per_second: float, unit: str = "frames") -> str:
    """Format a speed above 0; `unit` is a plural."""
    return f"{per_second:.1f} {unit}/s" if per_second >= 1 else f"{1 / per_second:.1f} s/{unit.removesuffix('s')}"


def duration(seconds: float) -> str:
    """Format as hours, minutes and seconds: 0:01:20."""
    minutes, whole = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{whole:02}"


class Bars(Progress):
    """A row for each task that takes long, and the status below them. Names are shortened to keep the figures."""

    message = ""

    def __init__(self, console: Console) -> None:
        width = console.width
        columns: list[ProgressColumn] = [_Title(table_column=Column()), MofNCompleteColumn(table_column=_figures())]
        if width >= 60:
            columns.insert(1, BarColumn(20 if width >= 80 else 10, table_column=Column(no_wrap=True)))
        columns += [_Rate(table_column=_figures()), _Left(" left" if width >= 60 else "")]
        super().__init__(*columns, console=console, transient=True)
        self._timer = Timer(BAR_DELAY_SECONDS, self.start)
        self._timer.daemon = True
        self._timer.start()

    def close(self) -> None:
        self._timer.cancel()
        self._timer.join()
        self.stop()

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        return super().make_tasks_table(task for task in tasks if (task.elapsed or 0.0) >= BAR_DELAY_SECONDS)

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.message:
            yield Text(self.message, style="dim")


def _figures() -> Column:
    return Column(justify="right", no_wrap=True)


class _Title(ProgressColumn):
    def render(self, task: Task) -> Name:
        return Name(task.description, fold=False)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.speed if "unit" in task.fields else None
        return Text(pace(speed, task.fields["unit"]) if speed else "", style="progress.data.speed")


class _Left(ProgressColumn):
    """The time left; nothing while it is unknown."""

    max_refresh = 0.5

    def __init__(self, word: str) -> None:
        super().__init__(table_column=_figures())
        self._word = word

    def render(self, task: Task) -> Text:
        left = task.fields["left"]() if "left" in task.fields else task.time_remaining
        return Text("" if left is None else f"{duration(left)}{self._word}", style="progress.remaining")
