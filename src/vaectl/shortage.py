"""Recognise out-of-memory and disk-full errors of any library."""

from __future__ import annotations

import errno
import re
from pathlib import Path

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_MEMORY = re.compile(
    r"(can't|cannot) allocate memory|out of memory|bad_alloc|failed to map segment|ALLOC_FAILED", re.IGNORECASE
)
"""Messages of errors without their own class: from the CPU, CUDA and its libraries, Apple GPUs, and Rust."""
_ASKED = re.compile(r"tried to allocate (\d+) bytes")


def is_memory_shortage(error: BaseException, *, needed: int | None = None) -> bool:
    """Whether an error means out of memory.

    `needed` is the most bytes that an intact file needs. A larger request comes from a damaged file and does not count.
    """
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    if not isinstance(error, Exception) or not _MEMORY.search(text := str(error)):
        return False
    asked = _ASKED.search(text)
    return needed is None or asked is None or int(asked[1]) <= needed


def is_disk_shortage(error: BaseException) -> bool:
    """Whether an error means that the disk is full, or a quota or a file size limit is reached."""
    return isinstance(error, OSError) and error.errno in _FULL


def system_reason(error: BaseException) -> str:
    """Return the reason of the operating system, which libraries wrap in their own errors; one line."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    lines = str(error).strip().splitlines()
    return getattr(cause, "strerror", None) or (lines[0] if lines else type(error).__name__)


def cannot_write(path: Path | str, error: BaseException) -> tuple[str, str]:
    """Return problem and remedy for a file that cannot be written."""
    if is_memory_shortage(error):
        return f"{path}: not written, out of memory", "free some"
    remedy = "free space" if is_disk_shortage(error) else "free space, check the disk"
    return f"{path}: writing failed ({system_reason(error)})", f"{remedy} or choose another place"
