"""What a step says: rows for people, and lines in its log that tell the parent process where it is.

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
"""Begins a line of a step's log: the case that runs now."""
END = "no case runs"


def say(line: str) -> None:
    """Print a line at once. Results are in files, so a reader that has gone, or a full disk, is no reason to stop."""
    try:
        print(line, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def add_row(file: Path, row: Row) -> None:
    """Add a row to a file of JSON lines; what JSON has no number for (infinity, NaN) becomes text."""
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
    """Write a line into the step's log."""
    print(line, file=sys.stderr, flush=True)


def running_case(log: Path) -> str | None:
    """The case that a step was busy with, by its log; None after its last one."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    marks = [line for line in lines if line == END or line.startswith(CASE)]
    if not marks:
        return "still starting"
    return None if marks[-1] == END else marks[-1].removeprefix(CASE)


def brief(row: Row) -> str:
    """The values of a row, or its reason, on one line."""
    return row.get("reason") or ", ".join(f"{name} {shown(value)}" for name, value in row.get("values", {}).items())


def shown(value: object) -> str:
    """A value as a table shows it."""
    if isinstance(value, float):
        return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.4g}"
    return str(value)


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or ["no message"])[0][:200]
