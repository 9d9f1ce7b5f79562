"""Files of JSON lines that are written while a run may be killed: whole lines count, whatever else is there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vaectl.io.parsing import size_of

LINE_BYTES = 2**20


def read_lines(file: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """For each line, the bytes up to its end and its object: None for a line that is cut short, or holds none.

    Raises OSError where the file cannot be read, UsageError where it is no ordinary one.
    """
    size_of(file)
    end = 0
    with file.open("rb") as opened:
        while line := opened.readline(LINE_BYTES):
            end += len(line)
            try:
                value = json.loads(line) if line.endswith(b"\n") else None
            except (ValueError, RecursionError):
                value = None
            yield end, value if isinstance(value, dict) else None
