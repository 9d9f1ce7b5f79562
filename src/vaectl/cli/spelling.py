"""Spell parameters in messages as options. The library names parameters in backticks."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from functools import cache

from vaectl import options
from vaectl.options import cli_name

MESSAGES = {"error", "reason", "failures", "left_out"}
"""Keys of a result that hold messages."""
PARAMETER = re.compile(r"(?<![^\s(])`(?P<name>[a-z][a-z0-9_]*)(?:=(?P<value>[^`]*))?`(?![^\s;,:)])")


@cache
def names() -> frozenset[str]:
    """Return the names of all options of all commands."""
    classes = (
        *(options.TrainOptions, options.ReconstructOptions, options.PrepareEvalOptions),
        *(options.EvalOptions, options.CompareOptions, options.ModelsOptions),
    )
    return frozenset(field.name for each in classes for field in fields(each))


def spell_options(message: str) -> str:
    """Replace `memory_limit` by --memory-limit and `dtype=float32` by --dtype float32."""

    def spell(found: re.Match[str]) -> str:
        if found["name"] not in names():
            return found[0]
        return " ".join(filter(None, (cli_name(found["name"]), found["value"])))

    return PARAMETER.sub(spell, message)


def as_json(values: object) -> str:
    """Return a result as one line of JSON, with options in its messages. Names of files stay as they are."""
    return json.dumps(_spelled(values, is_message=False), allow_nan=False)


def _spelled(value: object, is_message: bool) -> object:
    if isinstance(value, dict):
        return {name: _spelled(each, is_message or name in MESSAGES) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_spelled(each, is_message) for each in value]
    return spell_options(value) if is_message and isinstance(value, str) else value
