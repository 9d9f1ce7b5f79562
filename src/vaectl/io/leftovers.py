"""Temporary files and folders that a later run can remove if their process was killed.

A process holds a lock on each of them. The system releases the lock when the process ends, for whatever reason. Names
include the host. On that host, a leftover with a free lock can be removed. Those of other hosts are kept, because not
every file system shares locks.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import gettempdir

PREFIX = ".vaectl-"
_swept: set[Path] = set()


def this_host() -> str:
    """Return the host name, as a part of file names."""
    return re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname())[:64]


def temporary_name(suffix: str = "") -> str:
    """Return a unique hidden name: host, process id and random digits."""
    kept = suffix if len(os.fsencode(suffix)) <= 16 else ""
    return f"{PREFIX}{this_host()}-{os.getpid()}-{secrets.token_hex(4)}{kept}"


@contextmanager
def temporary_file(folder: Path, suffix: str = "") -> Iterator[Path]:
    """Yield a new, locked, empty file in `folder`. It is removed at the end unless it was renamed."""

    def make(path: Path) -> int:
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)

    with _held(folder, suffix, make) as path:
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a new, locked, empty folder in the system's folder for temporary files, private to the user."""

    def make(path: Path) -> int | None:
        path.mkdir(mode=0o700)
        with suppress(FileNotFoundError):  # removed by another process
            return os.open(path, os.O_RDONLY)
        return None

    place = Path(gettempdir())
    sweep(place)
    with _held(place, "", make) as path:
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _held(folder: Path, suffix: str, make: Callable[[Path], int | None]) -> Iterator[Path]:
    """Create a file or folder with `make` and lock it. Try again if another process removes it before the lock."""
    while True:
        path = folder / temporary_name(suffix)
        descriptor = make(path)
        if descriptor is None:
            continue
        try:
            _lock(descriptor)
            if os.fstat(descriptor).st_nlink > 0:
                yield path
                return
        finally:
            os.close(descriptor)


def sweep(folder: Path, *, again: bool = False) -> None:
    """Remove leftovers of dead processes of this host from `folder`; once for each folder, unless `again`."""
    folder = folder.absolute()
    if folder in _swept and not again:
        return
    _swept.add(folder)
    with suppress(OSError), os.scandir(folder) as entries:
        mine = f"{PREFIX}{this_host()}-"
        for name in [entry.name for entry in entries if entry.name.startswith(mine)]:
            with suppress(OSError):
                _remove_if_dead(folder / name)


def _remove_if_dead(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails if its process lives, or without locks
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    with suppress(OSError):  # without locks, no process can remove leftovers
        fcntl.flock(descriptor, fcntl.LOCK_EX)
