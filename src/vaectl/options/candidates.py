"""The candidates of `vaectl eval`: folders of reconstructions and models, each a path that may have a name."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from pydantic_core import CoreSchema

Read: TypeAlias = Callable[[Any], Any]


@dataclass(frozen=True)
class NamedPath:
    """A path as an option gives it."""

    name: str
    """Empty if none was given."""
    path: Path

    def __str__(self) -> str:
        if self.name:
            return f"{self.name}={self.path}"
        return f"./{self.path}" if "=" in self.path.parts[:1][0] else str(self.path)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.is_instance_schema(cls, serialization=core_schema.to_string_ser_schema())


def read_named_paths(read: Read) -> Read:
    """Return a parser of one `PATH` or `NAME=PATH`, or a list of them; `read` parses a path.

    A text that is the path of a file or folder is a path, also with an equals sign.
    """

    @wraps(read)
    def parse(value: Any) -> Any:
        given = value if isinstance(value, list | tuple) else [value]
        return tuple(each if isinstance(each, NamedPath) else named(each) for each in given)

    def named(value: Any) -> Any:
        name, equals, path = value.partition("=") if isinstance(value, str) else ("", "", "")
        if not equals or "/" in name or os.path.lexists(value):
            name, path = "", value
        elif not name.strip():
            raise ValueError(f"give a name before the equals sign, or ./{value} for the path")
        path = read(path)
        return NamedPath(name.strip(), path) if isinstance(path, Path) else path

    return parse


@dataclass(frozen=True)
class Candidate:
    """What is compared with the originals."""

    name: str
    """Given by the user, or the last part of the path; the whole path where that is not unique."""
    path: Path
    """Of reconstructions, or of a model, which then runs in memory; a model may be a name, as `model` takes it."""
    is_model: bool


def candidates_of(results: Sequence[NamedPath], models: Sequence[NamedPath]) -> tuple[Candidate, ...]:
    """Return the candidates, results first. Raises ValueError if two have the same name."""
    given = [*results, *models]
    short = [each.name or each.path.absolute().name.removesuffix("@main") for each in given]
    times = Counter(short)
    names = [
        each.name or (str(each.path) if times[name] > 1 else name) for each, name in zip(given, short, strict=True)
    ]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"two candidates are called {twice[0]}; name each, as in NAME=PATH")
    kinds = [False] * len(results) + [True] * len(models)
    return tuple(Candidate(name, each.path, is_model) for name, each, is_model in zip(names, given, kinds, strict=True))
