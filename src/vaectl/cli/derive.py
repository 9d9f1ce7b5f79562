"""Derive a command line from an options class, and parse options from a command line.

`add_command` adds a command to a Typer app. Its parameters are the fields of the class. The values typed and those of a
configuration file go through `vaectl.options.parse` together. Does not know what a command does.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

import typer
from typer.core import TyperCommand

from vaectl.cli.config_file import as_toml, read_config
from vaectl.cli.help import Guide
from vaectl.memory import reuse_freed
from vaectl.options import cli_name, options_of, parse

T = TypeVar("T")
Underlying: TypeAlias = Callable[[Mapping[str, Any]], dict[str, Any]]


class Command(Guide, TyperCommand):
    """A command that keeps values as typed, because pydantic validates all of them together."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for parameter in self.params:
            # Typer would build a pydantic adapter for each parameter, even for completion.
            vars(parameter)["process_value"] = lambda _context, value: value


def add_command(
    app: typer.Typer,
    function: Callable[[T], None],
    model: type[T],
    examples: str,
    underlying: Underlying | None = None,
) -> None:
    """Add `function`, which takes a valid `model`, to `app` as the command of its name.

    Its docstring is the help text; `examples` follow the options. `underlying` is that of `resolve`.
    """

    def run(**typed: Any) -> None:
        reuse_freed()  # before threads start, because each has its own heap
        # A repeatable option that is not given is an empty tuple.
        given = {name: value for name, value in typed.items() if value not in (None, ())}
        options = resolve(model, given, underlying)
        if options.print_config:
            print(as_toml(name, options), end="")
        else:
            function(options)

    name = function.__name__.replace("_", "-")
    vars(run)["__signature__"] = inspect.Signature(list(_parameters(model)))
    app.command(name, cls=Command, help=function.__doc__, epilog=inspect.cleandoc(examples))(run)


def _parameters(model: type[Any]) -> Iterator[inspect.Parameter]:
    defaults = {field.name: field.default for field in fields(model)}
    for field, option in options_of(model).items():
        default = defaults[field]
        flag = isinstance(default, bool)
        names = [cli_name(name) for name in (field, *option.aliases)]
        # The parser accepts underscores anyway; completion needs both spellings.
        names = list(dict.fromkeys([*names, *("--" + name[2:].replace("-", "_") for name in names)]))
        if flag:
            names = [f"{name}/--no-{name[2:]}" for name in names]
        required = default is MISSING
        known = default not in (MISSING, None, ()) and not flag
        shown = ",".join(default) if isinstance(default, tuple) else default
        declare = typer.Argument if option.positional else partial(typer.Option, *names)
        declared = declare(
            help=option.help + (f" (default: {shown})" if known else ""),
            metavar=option.metavar,
            rich_help_panel=option.panel,
            hidden=option.hidden,
            autocompletion=_offer(option.choices) if option.choices else None,
        )
        kind: Any = bool | None if flag else list[str] | None if option.many else str | None
        yield inspect.Parameter(
            field,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if required else None,
            annotation=Annotated[kind, declared],
        )


def _offer(choices: tuple[str, ...]) -> Callable[[], list[str]]:
    return lambda: list(choices)


def resolve(model: type[T], typed: Mapping[str, Any], underlying: Underlying | None = None) -> T:
    """Build the options from the values typed, which override those of the file `config`.

    `underlying` returns defaults from these values, which override it. Raises `UsageError` with one line that names
    each invalid option, and the file if it comes from there.
    """
    file = typed.get("config")
    configured = read_config(Path(file).expanduser(), model) if file else {}

    def name(field: str) -> str:
        option = options_of(model).get(field)
        spelt = option.metavar if option and option.positional else cli_name(field)
        return f"{field} in {file}" if field in configured and field not in typed else spelt

    given = {**configured, **typed}
    return parse(model, {**(underlying(given) if underlying else {}), **given}, name)
