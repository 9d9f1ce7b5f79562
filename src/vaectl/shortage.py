"""Short memory and full disks: how to recognise them, whichever library reports them."""

from __future__ import annotations

import errno
import re
from pathlib import Path

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_MEMORY = re.compile(
    r"(can't|cannot) allocate memory|out of memory|bad_alloc|failed to map segment|ALLOC_FAILED", re.IGNORECASE
)
"""What errors say that have no class of their own: of the CPU, of CUDA and its libraries, of Apple GPUs, of Rust."""
_ASKED = re.compile(r"tried to allocate (\d+) bytes")


def is_memory_shortage(error: BaseException, *, needed: int | None = None) -> bool:
    """Whether an error means that memory is short.

    `needed` is the number of bytes that could be asked for at most: a request for more comes from a damaged file.
    """
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    if not isinstance(error, Exception) or not _MEMORY.search(text := str(error)):
        return False
    asked = _ASKED.search(text)
    return needed is None or asked is None or int(asked[1]) <= needed


def is_disk_shortage(error: BaseException) -> bool:
    """Whether an error means that the disk is full, or that a limit of the user or of the process is reached."""
    return isinstance(error, OSError) and error.errno in _FULL


def system_reason(error: BaseException) -> str:
    """The system's reason, which libraries hide behind errors and texts of their own; one line."""
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
