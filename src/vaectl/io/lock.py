"""One process at a time in a folder. The system gives the lock back however the process ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vaectl.errors import UsageError


@contextmanager
def locked(folder: Path, remedy: str) -> Iterator[None]:
    """Hold `folder`, which is made where it is missing, for this process.

    Raises UsageError, which ends with `remedy`, where another process holds it or nothing can be written there. Where
    the file system has no locks, nobody is kept out.
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
