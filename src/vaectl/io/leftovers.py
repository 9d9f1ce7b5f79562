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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

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
    while True:
        path = folder / temporary_name(suffix)
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        try:
            _lock(descriptor)
            if os.fstat(descriptor).st_nlink == 0:  # another process swept it between the two lines above
                continue
            try:
                yield path
            finally:
                path.unlink(missing_ok=True)
            return
        finally:
            os.close(descriptor)


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """The same for a new empty folder."""
    path = folder / temporary_name()
    path.mkdir(parents=True)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _lock(descriptor)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
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
