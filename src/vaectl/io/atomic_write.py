"""A file that appears whole or not at all. Knows nothing of what is in it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vaectl.errors import UsageError, VaectlError


@contextmanager
def replacing(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Gives an empty file, hidden beside `path`, that becomes `path` when the block ends normally.

    When the block is left by an exception, Ctrl-C too, the file is removed and `path` stays as it was. Missing parent
    folders are made. Raises UsageError where `path` is a folder, exists without `overwrite`, or lies where nothing can
    be written; VaectlError where the finished file cannot be put in place.
    """
    _refuse_existing(path, overwrite)
    temporary = path.with_name(f".vaectl-{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise UsageError(f"{path}: cannot write there ({error.strerror}); choose another folder") from error
    try:
        yield temporary
        _refuse_existing(path, overwrite)  # it may have appeared since
        try:
            _flush_to_disk(temporary)
            temporary.replace(path)
        except OSError as error:
            raise VaectlError(
                f"{path}: cannot be completed ({error.strerror}); free space or choose another folder"
            ) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _refuse_existing(path: Path, overwrite: bool) -> None:
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name a file")
    if not overwrite and (path.exists() or path.is_symlink()):
        raise UsageError(f"{path}: exists already; pass --overwrite to replace it, or name another file")


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
