"""Temporary names that say whose they are, so that a later run can remove what a killed one has left.

A process holds a lock on each of its temporary files and folders; the system gives it back however the process ends.
So a leftover is dead when its lock is free, on the host that its name says. Those of other hosts are left alone: not
every file system shares its locks.
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
    """The name of this machine, as it can be part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname())[:64]


def temporary_name(suffix: str = "") -> str:
    """A hidden name that nobody else gives: with the host, the process and chance in it."""
    kept = suffix if len(os.fsencode(suffix)) <= 16 else ""
    return f"{PREFIX}{this_host()}-{os.getpid()}-{secrets.token_hex(4)}{kept}"


@contextmanager
def temporary_file(folder: Path, suffix: str = "") -> Iterator[Path]:
    """A new empty file in `folder`, marked as in use. Whoever takes it renames it; else it is removed at the end."""

    def make(path: Path) -> int:
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)

    with _held(folder, suffix, make) as path:
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """The same for a new empty folder, among the system's temporary files; nobody else may look into it."""

    def make(path: Path) -> int | None:
        path.mkdir(mode=0o700)
        with suppress(FileNotFoundError):  # swept
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
    """What `make` makes under a new name and opens, locked; made again where another process sweeps it before that."""
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
    """Remove what dead processes of this host have left in `folder`; each folder once, unless `again`."""
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
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails where its process lives, or there are no locks
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    with suppress(OSError):  # where the file system has none, nobody can sweep either
        fcntl.flock(descriptor, fcntl.LOCK_EX)
