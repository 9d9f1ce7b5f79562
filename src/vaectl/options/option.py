"""How an option is declared, and how options are made of what was typed or found in a file.

A command's options are a frozen dataclass that serves pydantic as its model: `parse` builds one from raw values. (With
a class derived from `pydantic.BaseModel` every `--help` and every press of TAB would take half as long again, because
the machinery of pydantic is imported as soon as the class exists; this way it is imported when a command runs.) The
command line and the help are derived from the same class by `vaectl.cli`, of which nothing is known here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

from vaectl.errors import UsageError, shown
from vaectl.numbers import INTEGER_LIMIT

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, TypeAdapter
    from pydantic_core import CoreSchema, ErrorDetails

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Option:
    """What the command line says about a field. Stands in its `Annotated` type, where pydantic finds `read`."""

    help: str
    panel: str
    metavar: str = ""
    """The kind of value, in capitals; flags have none."""
    aliases: tuple[str, ...] = ()
    """Other names that published commands use for the same thing."""
    choices: tuple[str, ...] = ()
    """What shell completion offers as a value."""
    read: Callable[[Any], Any] | None = None
    """Turns a value as typed (or found in a file) into the field's type; raises `ValueError` where it cannot."""
    in_file: bool = True
    """Whether a configuration file may set it."""
    hidden: bool = False
    """Accepted, because published commands have it, but left out of help, completion and docs/cli.md."""

    positional: bool = False
    """Whether the value stands on the command line by itself, without the option's name."""
    many: bool = False
    """Whether the option may be given several times; `read` gets the list of its values, or what a file holds."""
    least: float | None = None
    most: float | None = None
    """Bounds of a number, inclusive."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        def check(value: Any, typed: Callable[[Any], Any]) -> Any:
            if isinstance(value, bool) and source is not bool:
                raise ValueError("takes a value, not true or false")
            if self.read is not None and value is not None:
                value = self.read(value)
            result = typed(value)
            for number in result if isinstance(result, tuple) else (result,):
                if isinstance(number, float) and not math.isfinite(number):
                    raise ValueError(f"must be a finite number, not {number}")
            if self.least is not None and result is not None and result < self.least:
                raise ValueError(f"must be at least {self.least}, not {shown(str(result))}")
            most = INTEGER_LIMIT if self.most is None and type(result) is int and self.read is None else self.most
            if most is not None and result is not None and result > most:
                raise ValueError(f"must be at most {most}, not {shown(str(result))}")
            return result

        return core_schema.no_info_wrap_validator_function(check, handler(source))


def cli_name(field: str) -> str:
    """The option of a field: `num_frames` is `--num-frames`."""
    return "--" + field.replace("_", "-")


def parse(model: type[T], values: Mapping[str, Any], name: Callable[[str], str] = "`{}`".format) -> T:
    """Build the options `model` from raw values: strings as typed, or what a TOML or JSON file holds.

    `name` tells how to call a field when something is wrong with it. Raises `UsageError` with one line for all faults.
    """
    from pydantic import ValidationError

    try:
        parsed: T = _adapter(model).validate_python(dict(values))
        return parsed
    except ValidationError as error:
        raise UsageError("; ".join(_fault(detail, name) for detail in error.errors())) from None


def dump(options: Any) -> dict[str, Any]:
    """The resolved options as plain JSON values, fractions and paths as strings; `parse` reads them back."""
    values: dict[str, Any] = _adapter(type(options)).dump_python(options, mode="json")
    return values


_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


def _adapter(model: type[Any]) -> TypeAdapter[Any]:
    """What pydantic makes of an options class; that takes a twentieth of a second."""
    from pydantic import TypeAdapter

    if model not in _ADAPTERS:
        _ADAPTERS[model] = TypeAdapter(model)
    return _ADAPTERS[model]


def _fault(detail: ErrorDetails, name: Callable[[str], str]) -> str:
    if not detail["loc"]:
        return str(detail["ctx"]["error"])
    option = name(str(detail["loc"][0]))
    if detail["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"{option} is missing"
    if detail["type"] == "value_error":
        return f"{option}: {detail['ctx']['error']}"
    message = detail["msg"].replace("Input should be", "must be").split(", unable to")[0]
    return f"{option}: {message}, not {shown(repr(detail['input']))}"


def names_of(options: Mapping[str, Option]) -> dict[str, str]:
    """The field of each name that a file may use: the field's own name, and those of published commands."""
    return {name: field for field, option in options.items() for name in (field, *option.aliases)}


def options_of(model: type[Any]) -> dict[str, Option]:
    """Each field of an options class with what the command line says about it, in the order of the help."""
    from typing import get_type_hints

    hints = get_type_hints(model, include_extras=True)
    return {
        field.name: next(m for m in hints[field.name].__metadata__ if isinstance(m, Option)) for field in fields(model)
    }
