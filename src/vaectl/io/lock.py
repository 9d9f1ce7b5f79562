"""Lock a folder for one process. The system releases the lock when the process ends, for whatever reason."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vaectl.errors import UsageError


@contextmanager
def locked(folder: Path, remedy: str) -> Iterator[None]:
    """Lock `folder` for this process. Creates it if it is missing.

    Raises UsageError with `remedy` if another process holds the lock, or if the folder cannot be written. Has no effect
    on file systems without locks.
    """
    import fcntl

    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o666)
    except OSError as error:
        raise UsageError(f"{folder}: cannot write there ({error.strerror})", remedy) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{folder}: another process is at work there", f"wait for it, or {remedy}") from None
        except OSError:
            pass
        yield
    finally:
        os.close(descriptor)
