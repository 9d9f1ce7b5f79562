"""Derive a command line from an options class, and parse options from a command line.

`add_command` adds a command to a Typer app. Its parameters are the fields of the class. The values typed and those of a
configuration file go through `vaectl.options.parse` together. Does not know what a command does.
"""

from __future__ import annotations

import inspect
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cached_property, partial
from typing import Annotated, Any, ClassVar, TypeAlias, TypeVar

import typer
from typer.core import TyperCommand

from vaectl.cli.help import Guide
from vaectl.errors import UsageError
from vaectl.memory import reuse_freed
from vaectl.options import cli_name, options_of, parse
from vaectl.options.common import INPUT, read_path
from vaectl.options.file import read_config

T = TypeVar("T")
Underlying: TypeAlias = Callable[[Mapping[str, Any]], dict[str, Any]]

UNNAMED = "arguments"
"""The name of the arguments without the name of an option, next to the fields."""


@dataclass(frozen=True)
class Arguments:
    """What a command takes without the names of options."""

    metavar: str
    """A word for each option with `main`."""
    help: str
    read: Callable[[Sequence[str], Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]
    """Return the options that they mean, from them, the options typed, and those of the configuration file."""


class Command(Guide, TyperCommand):
    """A command that keeps values as typed, because pydantic validates all of them together.

    Its options are built on first use: to build those of all commands takes a third as long as to import Typer.
    """

    allow_extra_args = True  # `unexpected` answers them
    model: ClassVar[Callable[[], type[Any]]]
    build: ClassVar[Callable[[], TyperCommand]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        del self.params  # those without options

    @cached_property
    def built(self) -> TyperCommand:
        """The same command as Typer builds it, with the options."""
        return type(self).build()

    @cached_property
    def params(self) -> list[Any]:  # type: ignore[override]  # a plain attribute in the base class
        """The options."""
        for parameter in self.built.params:
            # Typer would build a pydantic adapter for each parameter, even for completion.
            vars(parameter)["process_value"] = lambda _context, value: value
        return self.built.params

    def invoke(self, ctx: Any) -> Any:
        """Run the command with the options of the context."""
        return self.built.invoke(ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line. Raises UsageError for an option that is repeated, and for arguments too many."""
        typed = list(args)
        extra = super().parse_args(ctx, args)
        if not ctx.resilient_parsing:
            refuse_repeated(typed, self.make_parser(ctx).parse_args(list(typed))[2])
            if extra:
                given = {name for name, value in ctx.params.items() if value not in (None, ())}
                raise unexpected(type(self).model(), extra, given)
        return extra


def refuse_repeated(typed: Sequence[str], order: Sequence[Any]) -> None:
    """Raise UsageError for an option with a value that is given more than once, under whatever names.

    `order` has the parameter of each option that was typed. A flag may be repeated; the last one counts.
    """
    for parameter, times in Counter(order).items():
        if times > 1 and parameter.param_type_name == "option" and not (parameter.multiple or parameter.is_flag):
            names = {name.replace("_", "-") for name in parameter.opts}
            used = [word.partition("=")[0] for word in typed]
            used = [word for word in used if word.replace("_", "-") in names]
            raise UsageError(f"`{parameter.name}` is given {times} times ({', '.join(used)})", "give it once")


def unexpected(model: type[Any], arguments: Sequence[str], given: Collection[str]) -> UsageError:
    """Return the answer to arguments without the name of an option: the options that they probably mean."""
    main = {field: option for field, option in options_of(model).items() if option.main}
    single = [field for field, option in main.items() if field not in given and not option.many]
    spare = len(arguments) - len(single)
    free = [field for field, option in main.items() for _ in range(spare if option.many else field in single)]
    problem = f"Got unexpected extra argument(s) ({' '.join(arguments)})"
    if len(arguments) > len(free):
        return UsageError(problem, "see --help")
    meant = (f"{cli_name(field)} {shlex.quote(value)}" for field, value in zip(free, arguments, strict=False))
    return UsageError(problem, f"did you mean {' '.join(meant)}?")


def add_command(
    app: typer.Typer,
    function: Callable[[T], None],
    model: Callable[[], type[T]],
    examples: str,
    underlying: Underlying | None = None,
    arguments: Arguments | None = None,
) -> None:
    """Add `function`, which takes valid options of the class that `model` returns, to `app` as the command of its name.

    Its docstring is the help text; `examples` follow the options. `underlying` is that of `resolve`.
    """

    def run(**typed: Any) -> None:
        from vaectl.cli.config_file import as_toml

        reuse_freed()  # before threads start, because each has its own heap
        # A repeatable option that is not given is an empty tuple.
        given = {name: value for name, value in typed.items() if value not in (None, ())}
        options = resolve(model(), given, underlying, arguments)
        if given.get("print_config"):
            print(as_toml(name, options), end="")
        else:
            function(options)

    def build() -> Any:
        vars(run)["__signature__"] = inspect.Signature(list(_parameters(model(), arguments)))
        alone = typer.Typer(add_completion=False)
        alone.command()(run)
        return typer.main.get_command(alone)

    name = function.__name__.replace("_", "-")
    command = type("Command", (Command,), {"model": staticmethod(model), "build": staticmethod(build)})
    app.command(name, cls=command, help=function.__doc__, epilog=inspect.cleandoc(examples))(lambda: None)


def _parameters(model: type[Any], arguments: Arguments | None) -> Iterator[inspect.Parameter]:
    if arguments is not None:
        words = typer.Argument(metavar=arguments.metavar, help=arguments.help, rich_help_panel=INPUT)
        yield _parameter(UNNAMED, Annotated[list[str] | None, words])
    defaults = {field.name: field.default for field in fields(model)}
    for field, option in options_of(model).items():
        default = defaults[field]
        flag = not option.metavar
        names = [cli_name(name) for name in (field, *option.aliases)]
        # The parser accepts underscores anyway; completion needs both spellings.
        names = list(dict.fromkeys([*names, *("--" + name[2:].replace("-", "_") for name in names)]))
        if flag:
            names = [f"{name}/--no-{name[2:]}" for name in names]
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
        required = default is MISSING and not (arguments and option.main)
        yield _parameter(field, Annotated[kind, declared], required)


def _parameter(name: str, annotation: Any, required: bool = False) -> inspect.Parameter:
    default = inspect.Parameter.empty if required else None
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _offer(choices: tuple[str, ...]) -> Callable[[], list[str]]:
    return lambda: list(choices)


def resolve(
    model: type[T],
    typed: Mapping[str, Any],
    underlying: Underlying | None = None,
    arguments: Arguments | None = None,
) -> T:
    """Build the options from the values typed, which override those of the file `config`.

    `underlying` returns defaults from these values, which override it. `arguments` reads those without a name, which
    are under `UNNAMED`. Raises `UsageError` with one line that names each invalid option, and the file if it
    comes from there.
    """
    typed = dict(typed)
    words = typed.pop(UNNAMED, ())
    file = typed.get("config")
    try:
        configured = read_config(read_path(file), model) if file else {}
    except ValueError as error:
        raise UsageError(f"`config`: {error}") from None
    if arguments and words:
        typed |= arguments.read(words, typed, configured)

    given = {**configured, **typed}
    main = [field for field, option in options_of(model).items() if option.main]
    places = dict(zip(main, arguments.metavar.split(), strict=True)) if arguments else {}

    def name(field: str) -> str:
        if field in places and field not in given:
            return f"{places[field]} or {cli_name(field)}"
        option = options_of(model).get(field)
        spelt = option.metavar if option and option.positional else cli_name(field)
        return f"{field} in {file}" if field in configured and field not in typed else spelt

    return parse(model, {**(underlying(given) if underlying else {}), **given}, name)
