"""Journals: files of JSON lines that survive a killed run. Incomplete lines are ignored."""

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
    """Yield the end of each line (bytes) and its JSON object; None if the line is truncated or holds no object.

    Raises OSError if the file cannot be read, UsageError if it is not a regular file.
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
    """Appends lines to a file, each completely or not at all.

    If the disk is full, lines wait in memory until there is space.
    """

    def __init__(self, path: Path, size: int) -> None:
        """Truncate the file to `size` bytes and continue there. Raises VaectlError if this fails."""
        self._path, self._size, self._waiting = path, size, b""
        try:
            with path.open("ab") as file:
                file.truncate(size)
        except OSError as error:
            raise VaectlError(*cannot_write(path, error)) from None

    def add(self, value: Any) -> None:
        """Append a dictionary or a dataclass of JSON values.

        Raises OSError if it cannot be written, for example on a full disk. Then it is written with the next line.
        """
        self._waiting += json.dumps(value, allow_nan=False, default=asdict).encode() + b"\n"
        with self._path.open("r+b") as file:
            file.truncate(self._size)
            file.seek(self._size)
            file.write(self._waiting)
        self._size += len(self._waiting)
        self._waiting = b""

    def flush(self) -> None:
        """Wait until all lines are on the disk. Raises VaectlError if a line could not be written."""
        if self._waiting:
            raise VaectlError(f"{self._path}: cannot be written", "free space")
        try:
            flush_to_disk(self._path)
        except OSError as error:
            raise VaectlError(f"{self._path}: cannot be written ({error.strerror})", "free space") from None
