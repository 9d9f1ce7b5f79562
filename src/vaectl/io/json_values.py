"""JSON values and JSON files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from vaectl.io.atomic_write import atomic_write


def plain(value: Any) -> Any:
    """Convert `value` to JSON types, also inside dictionaries and lists.

    Tuples become lists, NaN becomes None, infinity "inf" or "-inf". Other types, for example paths, become strings.
    """
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value if value is None or isinstance(value, int | float | str) else str(value)


def write_json(path: Path, value: Any, *, indent: int = 2) -> None:
    """Write a JSON file atomically, and replace an existing one. Raises like `atomic_write`."""
    with atomic_write(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(value, indent=indent, allow_nan=False) + "\n", encoding="utf-8")
