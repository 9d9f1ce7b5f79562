"""Reading files that nobody vouches for: only ordinary files are opened, and whatever parsing raises becomes one line.

Knows the ways in which a file may be damaged, and nothing of what it should hold.
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


def size_of(path: Path, remedy: str = "check the path") -> int:
    """Bytes of an ordinary file. Devices, pipes and folders, which may never end, are refused before they are opened.

    Raises UsageError for what is no ordinary file or may not be read; `remedy` is what to do about it.
    """
    try:
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
    """Inside, the content of `path` is parsed, by whatever library: all that this may raise becomes one of our errors.

    Our own errors pass. `problem` and `remedy` are those of a damaged file; `needed` as `is_memory_shortage` takes it.
    Raises DamagedError for content that cannot be parsed, OutOfMemoryError where memory is short, UsageError where
    there is no permission.
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
    """What a parser says, in one short line."""
    if is_memory_shortage(error):  # and yet none of this machine
        return "it asks for more memory than it can fill"
    text = getattr(error, "strerror", None) or next(iter(str(error).strip().splitlines()), "")
    text = text.partition("; use sys.")[0]  # of Python, about numbers of thousands of digits
    named = isinstance(error, OSError | ValueError | RuntimeError) and not isinstance(error, RecursionError)
    return shown(text if named and text else f"{type(error).__name__}: {text}" if text else type(error).__name__, 160)


def read_json(path: Path, most: int, remedy: str = "check the path") -> Any:
    """The value in a JSON file of at most `most` bytes; `remedy` is what to do where there is none.

    Raises UsageError for a file that is missing, larger, no ordinary file, or no JSON: cut short, nested too deeply,
    numbers of thousands of digits.
    """
    if (size := size_of(path, remedy)) > most:
        raise UsageError(f"{path}: has {size} bytes, and at most {most} are read", "give the right file")
    try:
        with parsing(path, "cannot be read as JSON"):
            return json.loads(path.read_bytes().decode())
    except DamagedError as error:
        raise UsageError(error.problem, error.remedy) from None
