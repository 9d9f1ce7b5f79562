"""Write the options of a command as a TOML file, which `vaectl.options.file` reads."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from vaectl.errors import UsageError, shown
from vaectl.options import cli_name, dump, options_of


def as_toml(command: str, options: Any) -> str:
    """Return the options as a configuration, by panel. `read_config` and `parse` give the same options.

    Comments list the options that are not set, and those that a file cannot set.
    """
    values = dump(options)
    defaults = {field.name: field.default for field in fields(options)}
    declared = {
        name: option
        for name, option in options_of(type(options)).items()
        if not option.hidden or getattr(options, name) != defaults[name]
    }
    panels: dict[str, list[str]] = {}
    for name, option in declared.items():
        if option.in_file and values[name] is not None:
            panels.setdefault(option.panel, []).append(f"{name} = {_toml(name, values[name])}")
    unset = [name for name, option in declared.items() if option.in_file and values[name] is None]
    other = [cli_name(name) for name, option in declared.items() if not option.in_file]
    lines = [f"# The options of `vaectl {command}`. Run them with `vaectl {command} --config FILE`."]
    lines += _comment("Not set", unset) if unset else []
    lines += _comment("Only on the command line", other)
    for panel, rows in panels.items():
        lines += ["", f"# {panel}", *rows]
    return "\n".join(lines) + "\n"


def _comment(title: str, names: list[str]) -> Iterator[str]:
    text = f"{title}: {', '.join(names)}"
    return iter(textwrap.wrap(text, 100, initial_indent="# ", subsequent_indent="#   ", break_on_hyphens=False))


def _toml(name: str, value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_toml(name, each) for each in value)}]"
    text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise UsageError(f"{cli_name(name)}: {shown(text)} is not UTF-8 and cannot be in a file", "rename it")
    return text
