"""Tables on stdout that keep their figures on narrow terminals: names give way first.

In a pipe or a file, nothing is shortened or wrapped.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

MIN_NAME = 12
"""Columns that a name keeps at least."""


def stdout() -> Console:
    """Return a console for results on stdout."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 100_000
    return console


def _print(console: Console, *parts: RenderableType) -> None:
    """Print parts below each other; in a pipe or a file without the blanks that pad their lines."""
    if console.is_terminal:
        console.print(*parts, sep="\n")
        return
    with console.capture() as capture:
        console.print(*parts, sep="\n")
    for line in capture.get().splitlines():
        console.out(line.rstrip(), highlight=False)


def printable(text: str) -> str:
    """Escape what a terminal would obey: control characters and bytes that are not text."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def shorten(name: str, width: int) -> str:
    """Shorten a name to at most `width` columns, in its middle: most of the end is kept."""
    if cell_len(name) <= width:
        return name
    head = max(width - 1, 0) // 3
    tail = max(width - 1 - head, 0)
    return f"{set_cell_size(name, head).rstrip()}…{set_cell_size(name[::-1], tail)[::-1].lstrip()}"


@dataclass(frozen=True)
class Name:
    """A name in a column: folded, or shortened, to the room that figures leave."""

    text: str
    fold: bool = True
    style: str = ""

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        length = cell_len(self.text)
        return Measurement(min(MIN_NAME, length), length)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        text = self.text if self.fold else shorten(self.text, options.max_width)
        yield Text(text, self.style, overflow="fold", no_wrap=not self.fold)


def print_table(
    console: Console,
    titles: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    names: Sequence[int] = (0,),
    styles: Mapping[int, str] | None = None,
    cell_styles: Mapping[tuple[int, int], str] | None = None,
) -> None:
    """Print rows under titles. The columns `names` hold names, which fold; the others hold figures, which do not.

    `styles`: row number -> style; `cell_styles`: row and column -> style. Where the figures do not fit into the width,
    the columns move closer; if that is not enough, each row becomes a block of lines, with a title before each figure
    and a unit (the second line of a title) after it.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    styles = styles or {}
    tables = [_table(titles, rows, names, styles, cell_styles or {}, gap) for gap in (3, 2, 1)]
    unlimited = console.options.update_width(100_000)
    sizes = [console.measure(table, options=unlimited) for table in tables]
    whole = (table for table, size in zip(tables, sizes, strict=True) if size.maximum <= console.width)
    # Rich would cut figures of several words, such as an interval.
    columns = zip_longest(titles, *rows, fillvalue="")
    longest = [max(cell_len(line) for cell in column for line in cell.split("\n")) for column in columns]
    least = sum(min(MIN_NAME, size) if index in names else size for index, size in enumerate(longest))
    folded = (tables[3 - gap] for gap in (2, 1) if least + gap * (len(titles) - 1) <= console.width)
    if table := next(whole, None) or next(folded, None):
        blank = [] if table.show_edge else [""]
        _print(console, *blank, table, *blank)
        return
    console.print()
    for number, row in enumerate(rows):
        console.print(Text(row[0], styles.get(number) or "bold", overflow="fold"))
        console.print(Text(_figures(titles[1:], row[1:], console.width)))
    console.print()


def _table(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    names: Sequence[int],
    styles: Mapping[int, str],
    cell_styles: Mapping[tuple[int, int], str],
    gap: int,
) -> Table:
    padding = (0, gap // 2, 0, (gap - 1) // 2)  # around the space that separates columns
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=padding, show_edge=gap == 3)
    for index, title in enumerate(titles):
        name = index in names
        table.add_column(title, justify="left" if name else "right", no_wrap=not name)
    for number, row in enumerate(rows):
        cells = (
            Name(cell) if index in names else Text.assemble((cell, cell_styles.get((number, index), "")))
            for index, cell in enumerate(row)
        )
        table.add_row(*cells, style=styles.get(number))
    return table


def _figures(titles: Sequence[str], cells: Sequence[str], width: int) -> str:
    """Write each cell between its title and its unit, on as many lines as needed. A row cut short has no titles."""
    if len(cells) < len(titles):
        titles = [""] * len(cells)
    figures = []
    for title, cell in zip(titles, cells, strict=True):
        name, _, unit = title.partition("\n")
        cell = cell.replace(" ", "\N{NO-BREAK SPACE}") if len(cell) <= width // 2 else cell
        figures += ["\N{NO-BREAK SPACE}".join(filter(None, (name, cell, unit)))] if cell else []
    return textwrap.fill(
        ", ".join(figures), width, initial_indent="  ", subsequent_indent="  ", break_long_words=False
    ).replace("\N{NO-BREAK SPACE}", " ")


def print_heading(console: Console, heading: str) -> None:
    """Print the heading of a table; on a terminal, broken between words."""
    console.print()
    console.print(Text(printable(heading), "bold", overflow="fold"))


def print_line(console: Console, line: str) -> None:
    """Print a line; on a terminal, broken between words."""
    console.print(Text(printable(line), overflow="fold"))


def print_facts(console: Console, facts: Mapping[str, str]) -> None:
    """Print a line for each fact, its name first. Long values continue below themselves, broken between words."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    for name, value in facts.items():
        table.add_row(Text(name, style="bold"), Text(printable(value), overflow="fold"))
    _print(console, table)
