"""The output of a step: rows for people, and lines in its log that name the current case for the parent process.

Imports no PyTorch, so the parent and a step can use it before PyTorch is prepared.
"""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

Row = dict[str, Any]
"""`step`, `name`, `status` (measured, passed, failed, left out), and `values` or a `reason`."""

CASE = "case: "
"""Prefix of a line in the log of a step: the current case."""
END = "no case runs"


def say(line: str) -> None:
    """Print a line and flush. Ignores errors (closed stdout, full disk), because results are in files."""
    try:
        print(line, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def add_row(file: Path, row: Row) -> None:
    """Add a row to a file of JSON lines; infinity and NaN become text."""
    values = {name: plain(value) for name, value in row.get("values", {}).items()}
    text = json.dumps(row | ({"values": values} if values else {}), allow_nan=False)
    try:
        with file.open("a", encoding="utf-8") as opened:
            opened.write(text + "\n")
    except OSError as error:
        say(f"{file}: not written: {error.strerror}")


def plain(value: object) -> object:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def mark(line: str) -> None:
    """Write a line to the log of the step."""
    print(line, file=sys.stderr, flush=True)


def running_case(log: Path) -> str | None:
    """Return the current case of a step, by its log; None after the last one."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    marks = [line for line in lines if line == END or line.startswith(CASE)]
    if not marks:
        return "still starting"
    return None if marks[-1] == END else marks[-1].removeprefix(CASE)


def brief(row: Row) -> str:
    """Format the values of a row, or its reason, in one line."""
    return row.get("reason") or ", ".join(f"{name} {shown(value)}" for name, value in row.get("values", {}).items())


def shown(value: object) -> str:
    """Format a value for a table."""
    if isinstance(value, float):
        return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.4g}"
    return str(value)


def first_line(error: BaseException) -> str:
    """Return the first line of the message of an error."""
    return (str(error).strip().splitlines() or ["no message"])[0][:200]
