"""A file that appears whole or not at all. Knows nothing of what is in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vaectl.errors import UsageError, VaectlError
from vaectl.io.leftovers import sweep, temporary_file
from vaectl.shortage import cannot_write, is_disk_shortage


@contextmanager
def atomic_write(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Gives an empty file, hidden in the folder of `path`, that becomes `path` when the block ends normally.

    When the block is left by an exception, Ctrl-C too, the file is removed and `path` stays as it was. Missing parent
    folders are made, and what killed runs have left there is removed. Raises UsageError where `path` is a folder,
    exists without `overwrite`, or is where nothing can be written; VaectlError where the disk is full, also where
    the block finds this out, or the finished file cannot be put in place.
    """
    _refuse_existing(path, overwrite)
    with ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            sweep(path.parent)
            temporary = held.enter_context(temporary_file(path.parent, path.suffix))
        except OSError as error:
            raise UsageError(f"{path}: cannot write there ({error.strerror})", "choose another folder") from error
        try:
            yield temporary
        except OSError as error:
            if is_disk_shortage(error) and error.filename in (None, str(temporary)):
                raise VaectlError(*cannot_write(path, error)) from error
            raise
        _refuse_existing(path, overwrite)  # it may have appeared since
        try:
            flush_to_disk(temporary)
            temporary.replace(path)
        except OSError as error:
            raise VaectlError(
                f"{path}: cannot be completed ({error.strerror})", "free space or choose another folder"
            ) from error


def _refuse_existing(path: Path, overwrite: bool) -> None:
    if path.is_dir():
        raise UsageError(f"{path}: is a folder", "name a file")
    if not overwrite and (path.exists() or path.is_symlink()):
        raise UsageError(f"{path}: exists already", "pass `overwrite` to replace it, or name another file")


def flush_to_disk(path: Path) -> None:
    """Wait until a file, or the list of a folder's files, is on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
