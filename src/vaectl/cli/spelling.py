"""Spell parameters in messages as options. The library names parameters in backticks."""

from __future__ import annotations

import re
from dataclasses import fields

from vaectl.options import EvalOptions, PrepareEvalOptions, ReconstructOptions, cli_name
from vaectl.options.models import ModelsOptions
from vaectl.options.train import TrainOptions

NAMES = {
    field.name
    for options in (TrainOptions, ReconstructOptions, PrepareEvalOptions, EvalOptions, ModelsOptions)
    for field in fields(options)
}
PARAMETER = re.compile(r"(?<![^\s(])`(?P<name>[a-z][a-z0-9_]*)(?:=(?P<value>[^`]*))?`(?![^\s;,:)])")


def spell_options(message: str) -> str:
    """Replace `memory_limit` by --memory-limit and `dtype=float32` by --dtype float32."""

    def spell(found: re.Match[str]) -> str:
        if found["name"] not in NAMES:
            return found[0]
        return " ".join(filter(None, (cli_name(found["name"]), found["value"])))

    return PARAMETER.sub(spell, message)
