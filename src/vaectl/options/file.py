"""Read the options of a command from a TOML or JSON file."""

from __future__ import annotations

import json
import stat
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from vaectl.errors import UsageError, shown
from vaectl.options.option import names_of, options_of

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
