"""The command line as a page of documentation, from the same options that the program takes.

    python -m vaectl.cli.reference > docs/cli.md

Knows the options classes and nothing of Typer.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, fields
from typing import Any

from vaectl.cli.app import COMMANDS
from vaectl.options import cli_name, options_of

HEAD = """\
# Command line

Made from the options by `python -m vaectl.cli.reference > docs/cli.md`.

Every option also works with underscores. `--no-...` switches off a flag that a file sets. Options in a file
(`--config`, TOML or JSON) have the same names; the command line overrides them. The names and options of published
scripts are accepted too: [published-scripts.md](published-scripts.md) lists them.
"""


def reference() -> str:
    """The whole page, Markdown."""
    return "\n".join(
        [HEAD, *(line for function, model, examples in COMMANDS for line in command(function, model, examples))]
    )


def command(function: Any, model: type[Any], examples: str) -> Iterator[str]:
    """The lines about one command."""
    name = function.__name__.replace("_", "-")
    yield from (f"## vaectl {name}", "", inspect.cleandoc(function.__doc__), "", "```")
    yield textwrap.dedent(examples.replace("\nExamples:\n", "")).rstrip()
    yield from ("```", "")
    panels: dict[str, list[str]] = {}
    defaults = {field.name: field.default for field in fields(model)}
    for field, option in options_of(model).items():
        if option.hidden:
            continue
        name = option.metavar if option.positional else cli_name(field)
        value = f" {option.metavar}" * (not option.positional and bool(option.metavar))
        text, _, told = option.help.partition(" (default: ")
        shown = told.removesuffix(")") or default(defaults[field])
        panels.setdefault(option.panel, []).append(f"| `{name}`{value} | {text} | {shown} |")
    for panel, rows in panels.items():
        yield from (f"**{panel}**", "", "| option | what it does | default |", "|---|---|---|", *rows, "")


def default(value: Any) -> str:
    if value is MISSING:
        return "**required**"
    if value is False or value is None or value == ():
        return "off" if value is False else ""
    return "on" if value is True else f"`{','.join(value) if isinstance(value, tuple) else value}`"


if __name__ == "__main__":
    print(reference(), end="")
