"""A temporary file for what does not fit into memory.

It has no name in the file system, so nothing is left of it however the process ends.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable

from vaectl.errors import VaectlError
from vaectl.memory import format_size


def spill_folder() -> str:
    """The folder for large temporary files: TMPDIR, else not /tmp, which is often in memory itself."""
    large = "/var/tmp"
    return os.environ.get("TMPDIR") or (large if os.access(large, os.W_OK) else tempfile.gettempdir())


def check_spill_room(size: int) -> None:
    """Raise VaectlError if the disk of that folder has less than `size` bytes free."""
    folder = spill_folder()
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise VaectlError(f"{folder}: {error.strerror}", "set TMPDIR to a folder with room") from None
    if free < size:
        raise VaectlError(
            f"{folder}: {format_size(free)} free, but the run needs {format_size(size)} there",
            "set TMPDIR to another folder, use fewer frames, or raise `memory_limit`",
        )


class SpillFile:
    """Bytes in a temporary file. Raises VaectlError if it cannot be created, or when the disk is full."""

    def __init__(self) -> None:
        self._end = 0
        folder = spill_folder()
        try:
            self._file = tempfile.TemporaryFile(buffering=0, dir=folder)  # noqa: SIM115 - open as long as this object
        except OSError as error:
            raise VaectlError(
                f"{folder}: cannot create a temporary file ({error.strerror})", "set TMPDIR to another folder"
            ) from None

    def allocate(self, size: int) -> int:
        """Reserve `size` bytes; returns where they start."""
        start, self._end = self._end, self._end + size
        return start

    def clear(self) -> None:
        """Let new data overwrite everything."""
        self._end = 0

    def write(self, start: int, data: memoryview) -> None:
        self._file.seek(start)
        try:
            transfer(self._file.write, data)
        except OSError as error:
            raise VaectlError(
                f"{spill_folder()}: writing a temporary file failed ({error.strerror})",
                "free space, set TMPDIR to another folder, or raise `memory_limit`",
            ) from None

    def read(self, start: int, data: memoryview) -> None:
        """Fill `data` with the bytes from `start` on."""
        self._file.seek(start)
        transfer(self._file.readinto, data)


def transfer(move: Callable[[memoryview], int | None], data: memoryview) -> None:
    """Move all of `data` to or from a raw file, whose `write` and `readinto` may stop half-way: on a full disk."""
    while data:
        count = move(data)
        if not count:
            raise EOFError(f"{len(data)} bytes are missing in a temporary file")
        data = data[count:]
