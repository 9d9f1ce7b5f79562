"""The help page (usage, panels of options, examples) and shell completion.

The page uses Rich directly. The help page of Typer imports a Markdown renderer, which doubles the startup time, and has
extra columns for types and ranges, which leave too little of 80 characters for the text.
"""

from __future__ import annotations

import inspect
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

WIDEST = 100
"""Maximum width of the page in columns."""
LEAST_TEXT = 38
"""Columns next to the longest name, borders included, below which the text goes under the name."""


class Guide:
    """Mixin for commands and groups of Typer: our help page, completion without duplicates, and a fast start."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help page."""
        formatter.write(_page(self, ctx))

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, with a default for the flags of Typer itself (--help and completion).

        Without a default, Typer imports all of pydantic to parse them.
        """
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]  # in the class that uses the mixin
        for parameter in parameters:
            if not parameter.expose_value:
                parameter.default = False
        return parameters

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Offer the first name of each option; offer other spellings, aliases and `--no-…` if no first name matches.

        Has no descriptions, because Typer imports its slow help renderer to strip their markup.
        """
        complete = super().shell_complete  # type: ignore[misc]  # as above
        items: list[Any] = complete(ctx, incomplete) or ([] if incomplete else complete(ctx, "--"))
        for item in items:
            item.help = None
        first = {first_name(parameter) for parameter in self.get_params(ctx)}
        return [item for item in items if item.value in first] or items


def first_name(parameter: Any) -> str:
    """Return the name of an option that help and completion show: the first long one. (Those of --help are a set.)"""
    return str(next((name for name in parameter.opts if name.startswith("--")), parameter.opts[0]))


def _page(command: Any, context: Any) -> str:
    usage = Text.assemble(("Usage: ", "bold"), (context.command_path, "bold"))
    panels: dict[str, list[tuple[Text, str]]] = {}
    for name, sub in getattr(command, "commands", {}).items():
        panels.setdefault("Commands", []).append((Text(name, "bold cyan"), sub.help.partition("\n")[0]))
    for parameter in command.get_params(context):
        if getattr(parameter, "hidden", False):
            continue
        # The help option comes last and has no panel: put it in the last panel.
        panel = getattr(parameter, "rich_help_panel", None) or next(reversed(panels), "Options")
        if panel == "Commands":
            panel = "Options"
        positional = parameter.param_type_name == "argument"
        short = [option for option in parameter.opts if len(option) == 2]
        option = "" if positional else ", ".join([*short, first_name(parameter)])
        name = Text.assemble((option, "bold cyan"), (f" {parameter.metavar or ''}"[positional:].rstrip(), "yellow"))
        panels.setdefault(panel, []).append((name, parameter.help or ""))
        if parameter.required:
            usage.append(" ").append(name)
        elif positional:
            usage.append(f" [{parameter.metavar}]")
    usage.append(" [OPTIONS]" + " COMMAND" * ("Commands" in panels))

    console = Console(highlight=False)
    console.width = min(console.width, WIDEST)
    names = max(len(name) for rows in panels.values() for name, _ in rows)
    with console.capture() as page:
        console.print(usage)
        for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
            console.print(Text("\n" + " ".join(paragraph.split())))
        console.print()
        for title, rows in panels.items():
            console.print(_panel(title, rows, names, stacked=console.width - names < LEAST_TEXT))
        for line in (command.epilog or "").splitlines():
            console.print(Text(_continued(line, console.width)), soft_wrap=True)
    return page.get()


def _continued(line: str, width: int) -> str:
    """Return an example in lines of at most `width` columns, joined as a shell joins them."""
    cut = line.rfind(" --", 0, width - 1)
    if len(line) <= width or not line[:cut].strip():
        return line
    return f"{line[:cut]} \\\n{_continued('    ' + line[cut + 1 :], width)}"


def _panel(title: str, rows: list[tuple[Text, str]], names: int, stacked: bool) -> Panel:
    """Return the rows of a panel: name and text side by side, or the text below the name."""
    table = Table.grid(padding=(0, 2), expand=True)
    if not stacked:
        table.add_column(no_wrap=True, width=names)
    table.add_column(ratio=1)
    for name, text in rows:
        about = Text(text)
        about.highlight_regex(r"\(default: .*\)", "dim")
        if stacked:
            table.add_row(name)
            table.add_row(Padding(about, (0, 0, 0, 4)))
        else:
            table.add_row(name, about)
    return Panel(table, title=title, title_align="left", border_style="dim")
