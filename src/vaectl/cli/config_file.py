"""Configuration files: read the options of a command from TOML or JSON, and write them as TOML."""

from __future__ import annotations

import json
import stat
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from vaectl.errors import UsageError, shown
from vaectl.options import cli_name, dump, names_of, options_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CONFIG_BYTES = 2**26
"""The record of a run may list many clips."""


def read_config(path: Path, model: type[Any]) -> dict[str, Any]:
    """Read the fields of `model` in a TOML or JSON file, by field name. Relative paths stay relative to the cwd.

    The records of runs are configurations too: options.json of `train`, vaectl.json of `reconstruct`, manifest.json of
    `prepare-eval`. They hold all options; those that a file cannot set are left out. A null means "not given".
    """
    try:
        values = _load(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot read the configuration: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        reason = shown(str(error).partition("; use sys.")[0], 200)
        raise UsageError(f"{path}: not a valid {path.suffix[1:].upper()} file: {reason}") from None
    if isinstance(values, dict) and isinstance(values.get("options"), dict):
        values = values["options"]
    if not isinstance(values, dict):
        raise UsageError(f"{path}: must hold one table of options", "for example num_frames = 17")

    options = options_of(model)
    known = names_of(options)
    is_record = {"config", "debug"} <= set(values)
    fields_set: dict[str, Any] = {}
    for key, value in values.items():
        field = known.get(key.replace("-", "_"))
        if field is None:
            settable = {name for name, owner in known.items() if options[owner].in_file}
            near = get_close_matches(key.replace("-", "_"), settable, n=1)
            shown_names = [field for field, option in options.items() if option.in_file and not option.hidden]
            remedy = f"did you mean {near[0]}?" if near else f"it may set {', '.join(shown_names)}"
            raise UsageError(f"{path}: unknown option {shown(key)}", remedy)
        if value is None or (is_record and not options[field].in_file):
            continue
        if not options[field].in_file:
            raise UsageError(f"{path}: `{field}` cannot be set in a file", "give it on the command line")
        if field in fields_set:
            raise UsageError(f"{path}: sets {field} twice", "keep one")
        fields_set[field] = value
    return fields_set


def _load(path: Path) -> Any:
    if path.suffix not in (".toml", ".json"):
        raise UsageError(f"{path}: a configuration is a .toml or .json file")
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > CONFIG_BYTES:
        raise UsageError(f"{path}: a configuration is an ordinary file of at most {CONFIG_BYTES} bytes")
    text = path.read_bytes().decode()
    if path.suffix == ".json":
        return json.loads(text, object_pairs_hook=_without_duplicates)
    return tomllib.loads(text)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return one JSON object. Raises ValueError for a key that is given twice, as in TOML."""
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"it sets {key} twice")
        values[key] = value
    return values


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
