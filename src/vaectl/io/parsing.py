"""Read untrusted files: only regular files are opened, and every error of a parser becomes one line.

Knows how a file may be damaged, but not what it should contain.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vaectl.errors import DamagedError, OutOfMemoryError, UsageError, VaectlError, shown
from vaectl.shortage import is_memory_shortage

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""How a Git LFS pointer begins (git-lfs/docs/spec.md)."""
HEAD_BYTES = 4096


def exists(path: Path) -> bool:
    """Return whether a file or folder exists. Raises UsageError for a link without a target."""
    there = path.exists()
    if not there and path.is_symlink():
        target = shown(str(path.readlink()))
        raise UsageError(f"{path}: is a broken link to {target}", "mend the link, or download the file again")
    return there


def size_of(path: Path, remedy: str = "check the path") -> int:
    """Return the size of a regular file in bytes. Devices and pipes, which may never end, are not opened.

    Raises UsageError with `remedy` if `path` is not a regular file, and UsageError if it cannot be read.
    """
    try:
        exists(path)
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{path}: no such file", remedy) from None
    except PermissionError:
        raise UsageError(f"{path}: no permission to read it", "change its permissions or its owner") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be opened ({getattr(error, 'strerror', None) or error})") from None
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{path}: is not an ordinary file", remedy)
    return status.st_size


@contextmanager
def parsing(path: Path, problem: str, remedy: str = "", *, needed: int | None = None) -> Iterator[None]:
    """Convert all errors of a library that parses `path` inside the block. Our own errors pass unchanged.

    `problem` and `remedy` describe a damaged file; for `needed` see `is_memory_shortage`. Raises DamagedError for
    content that cannot be parsed, OutOfMemoryError if memory is short, UsageError without read permission.
    """
    try:
        yield
    except VaectlError:
        raise
    except PermissionError:
        raise UsageError(f"{path}: no permission to read it", "change its permissions or its owner") from None
    except Exception as error:
        if is_memory_shortage(error, needed=needed):
            raise OutOfMemoryError(f"{path}: out of memory while reading it", "free some") from None
        raise DamagedError(f"{path}: {problem} ({reason_of(error)})", remedy) from None


def reason_of(error: BaseException) -> str:
    """Return the message of a parser's error in one short line."""
    if is_memory_shortage(error):  # the file is to blame, not this machine
        return "it asks for more memory than it can fill"
    text = getattr(error, "strerror", None) or next(iter(str(error).strip().splitlines()), "")
    text = text.partition("; use sys.")[0]  # Python's advice about very long numbers
    named = isinstance(error, OSError | ValueError | RuntimeError) and not isinstance(error, RecursionError)
    return shown(text if named and text else f"{type(error).__name__}: {text}" if text else type(error).__name__, 160)


def refuse_lfs_pointer(path: Path, head: bytes) -> None:
    """Raise DamagedError if a file that begins with `head` is what Git has in its place without Git LFS."""
    if head.startswith(LFS_POINTER):
        raise DamagedError(f"{path}: is a Git LFS pointer, not the file", "run git lfs pull in its repository")


def read_json(path: Path, most: int, remedy: str = "check the path") -> Any:
    """Return the value of a JSON file of at most `most` bytes.

    Raises UsageError with `remedy` for a missing file or none that is regular. Raises UsageError for a larger file or
    invalid JSON: truncated, nested too deeply, numbers of thousands of digits.
    """
    if (size := size_of(path, remedy)) > most:
        raise UsageError(f"{path}: has {size} bytes, and at most {most} are read", "give the right file")
    try:
        with parsing(path, "cannot be read as JSON"):
            with path.open("rb") as file:
                if b"\0" in file.read(HEAD_BYTES):  # a large file of zeros takes seconds to parse
                    raise ValueError("has zero bytes")
                file.seek(0)
                content = file.read()
            refuse_lfs_pointer(path, content)
            return json.loads(content.decode())
    except DamagedError as error:
        raise UsageError(error.problem, error.remedy) from None
