"""Journals: files of JSON lines that grow while a run may be killed. Whole lines count, whatever else is there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vaectl.errors import VaectlError
from vaectl.io.atomic_write import flush_to_disk
from vaectl.io.parsing import size_of
from vaectl.shortage import cannot_write

LINE_BYTES = 2**20


def read_lines(file: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Yield for each line the bytes up to its end and its object: None for a line that is cut short, or holds none.

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


class Journal:
    """Appends lines to a file. A line is there whole or not at all.

    Where the disk is full, lines wait in memory until there is room again.
    """

    def __init__(self, path: Path, size: int) -> None:
        """Continue after the first `size` bytes; what comes after them is removed. Raises VaectlError."""
        self._path, self._size, self._waiting = path, size, b""
        try:
            with path.open("ab") as file:
                file.truncate(size)
        except OSError as error:
            raise VaectlError(*cannot_write(path, error)) from None

    def add(self, value: Any) -> None:
        """Append a dictionary or a dataclass of JSON values.

        Raises OSError where the disk takes no more. The line then waits, and is written with the next one.
        """
        self._waiting += json.dumps(value, allow_nan=False, default=asdict).encode() + b"\n"
        with self._path.open("r+b") as file:
            file.truncate(self._size)
            file.seek(self._size)
            file.write(self._waiting)
        self._size += len(self._waiting)
        self._waiting = b""

    def flush(self) -> None:
        """Wait until all lines are on the disk. Raises VaectlError where lines wait, or the disk takes no more."""
        if self._waiting:
            raise VaectlError(f"{self._path}: cannot be written", "free space")
        try:
            flush_to_disk(self._path)
        except OSError as error:
            raise VaectlError(f"{self._path}: cannot be written ({error.strerror})", "free space") from None
