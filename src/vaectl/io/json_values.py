"""Values as JSON has them, and files of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from vaectl.io.atomic_write import atomic_write


def plain(value: Any) -> Any:
    """Return `value` in the types of JSON, within dictionaries and lists too.

    Tuples become lists, NaN becomes None, infinity "inf" or "-inf", and what JSON has no type for, such as a path, its
    text.
    """
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value if value is None or isinstance(value, int | float | str) else str(value)


def write_json(path: Path, value: Any, *, indent: int = 2) -> None:
    """Write a JSON file in place of what is there, whole or not at all. Raises as `atomic_write` does."""
    with atomic_write(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(value, indent=indent, allow_nan=False) + "\n", encoding="utf-8")
