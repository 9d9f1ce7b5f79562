"""Declare options, and parse them from typed values or a file.

The options of a command are a frozen dataclass that pydantic validates: `parse` builds one from raw values. It does not
derive from `pydantic.BaseModel`, because then `--help` and completion would import pydantic and take 50 % longer.
`vaectl.cli` derives the command line and the help from the same class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from vaectl.errors import UsageError, shown
from vaectl.numbers import INTEGER_LIMIT

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, TypeAdapter
    from pydantic_core import CoreSchema, ErrorDetails

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Option:
    """The command-line option of a field. Part of its `Annotated` type, where pydantic finds `read`."""

    help: str
    panel: str
    metavar: str = ""
    """The kind of value, in capitals; empty for flags."""
    aliases: tuple[str, ...] = ()
    """Names of the same option in published commands."""
    choices: tuple[str, ...] = ()
    """Values that shell completion offers."""
    read: Callable[[Any], Any] | None = None
    """Converts a typed value, or one from a file, to the type of the field; raises `ValueError` if it cannot."""
    in_file: bool = True
    """Whether a configuration file may set it."""
    hidden: bool = False
    """Accepted for published commands, but not in help, completion and docs/cli.md."""

    positional: bool = False
    """Whether the value is given without the name of the option."""
    main: bool = False
    """Whether it is a path that the command is about, so that an argument without the name of an option may mean it."""
    many: bool = False
    """Whether the option may be repeated; `read` gets the list of values, or the value in a file."""
    least: float | None = None
    most: float | None = None
    """Bounds of a number, inclusive."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        def check(value: Any, typed: Callable[[Any], Any]) -> Any:
            if isinstance(value, bool) and bool not in (source, *get_args(source)):
                raise ValueError("takes a value, not true or false")
            if self.read is not None and value is not None:
                value = self.read(value)
            result = typed(value)
            for number in result if isinstance(result, tuple) else (result,):
                if isinstance(number, float) and not math.isfinite(number):
                    raise ValueError(f"must be a finite number, not {number}")
            if result is None or isinstance(result, str):  # a word instead of a number, such as all
                return result
            if self.least is not None and result < self.least:
                raise ValueError(f"must be at least {self.least}, not {shown(str(result))}")
            most = INTEGER_LIMIT if self.most is None and type(result) is int and self.read is None else self.most
            if most is not None and result > most:
                raise ValueError(f"must be at most {most}, not {shown(str(result))}")
            return result

        return core_schema.no_info_wrap_validator_function(check, handler(source))


def cli_name(field: str) -> str:
    """Return the option of a field: `--num-frames` for `num_frames`."""
    return "--" + field.replace("_", "-")


def parse(model: type[T], values: Mapping[str, Any], name: Callable[[str], str] = "`{}`".format) -> T:
    """Build the options `model` from raw values: strings as typed, or values from a TOML or JSON file.

    `name` returns the name of a field in messages. Raises `UsageError` with one line for all faults.
    """
    from pydantic import ValidationError

    try:
        parsed: T = _adapter(model).validate_python(dict(values))
        return parsed
    except ValidationError as error:
        details = error.errors()
        # Of a number or a word, pydantic reports both; the fault of the number says both.
        words = {
            each["loc"][0]: f" or {each['ctx']['expected']}"
            for each in details
            if each["type"] == "literal_error" and len(each["loc"]) > 1
        }
        rest = [each for each in details if each["type"] != "literal_error" or len(each["loc"]) == 1]
        raise UsageError("; ".join(_fault(each, name, words) for each in rest)) from None


def dump(options: Any) -> dict[str, Any]:
    """Return the resolved options as plain JSON values, fractions and paths as strings; `parse` reads them back."""
    values: dict[str, Any] = _adapter(type(options)).dump_python(options, mode="json")
    return values


_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


def _adapter(model: type[Any]) -> TypeAdapter[Any]:
    """Return the pydantic adapter of an options class. Cached, because building one takes 50 ms."""
    from pydantic import TypeAdapter

    if model not in _ADAPTERS:
        _ADAPTERS[model] = TypeAdapter(model)
    return _ADAPTERS[model]


def _fault(detail: ErrorDetails, name: Callable[[str], str], words: Mapping[int | str, str]) -> str:
    if not detail["loc"]:
        return str(detail["ctx"]["error"])
    option = name(str(detail["loc"][0]))
    if detail["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"{option} is missing"
    if detail["type"] == "value_error":
        return f"{option}: {detail['ctx']['error']}"
    message = detail["msg"].replace("Input should be", "must be").split(", unable to")[0]
    return f"{option}: {message}{words.get(detail['loc'][0], '')}, not {shown(repr(detail['input']))}"


def names_of(options: Mapping[str, Option]) -> dict[str, str]:
    """Map each name that a file may use to its field: the name of the field and its aliases."""
    return {name: field for field, option in options.items() for name in (field, *option.aliases)}


def options_of(model: type[Any]) -> dict[str, Option]:
    """Map each field of an options class to its `Option`, in the order of the help."""
    from typing import get_type_hints

    hints = get_type_hints(model, include_extras=True)
    return {
        field.name: next(m for m in hints[field.name].__metadata__ if isinstance(m, Option)) for field in fields(model)
    }
