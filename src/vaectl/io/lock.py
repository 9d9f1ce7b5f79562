"""Locks between processes. The system releases a lock when its process ends, for whatever reason."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from vaectl.errors import UsageError
from vaectl.io.atomic_write import made


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


@contextmanager
def one_at_a_time(file: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Let only one process at a time into the block that makes `file`. Calls `on_wait` before it waits for another.

    The lock is a hidden file next to `file`. It is removed at the end, and with it new folders if the block fails. Has
    no effect on file systems without locks, or without write permission.
    """
    with ExitStack() as held:
        with suppress(OSError):
            held.enter_context(made(file.parent))
            held.enter_context(_lock_file(file.with_name(f".{file.name}.lock"), on_wait))
        yield


@contextmanager
def _lock_file(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    import fcntl

    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)
