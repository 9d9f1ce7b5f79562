"""Write a file completely or not at all. Does not know its content."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from vaectl.errors import UsageError, VaectlError
from vaectl.io.leftovers import sweep, temporary_file
from vaectl.shortage import cannot_write, is_disk_shortage


@contextmanager
def atomic_write(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a hidden empty file in the folder of `path`, and rename it to `path` when the block ends normally.

    Missing parent folders are created, and temporary files of killed runs are removed. After an exception, also Ctrl-C,
    the file and the created folders are removed, and `path` is unchanged. Raises UsageError if `path` is a folder,
    device, pipe or socket, exists without `overwrite`, or is in a folder without write permission. Raises VaectlError
    if the disk is full, also inside the block, or if the rename fails.
    """
    _refuse_existing(path, overwrite)
    with ExitStack() as held:
        try:
            held.enter_context(made(path.parent))
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
        _refuse_existing(path, overwrite)  # it may exist by now
        try:
            flush_to_disk(temporary)
            temporary.replace(path)
        except OSError as error:
            raise VaectlError(
                f"{path}: cannot be completed ({error.strerror})", "free space or choose another folder"
            ) from error


def refuse_special(path: Path, remedy: str = "") -> None:
    """Raise UsageError if `path` is a folder, device, pipe or socket, or a link to one.

    Also for a link into /proc, because `/dev/stdout` is one and ends at a regular file where stdout is redirected to
    one, and for a path below a file.
    """
    into_proc = path.is_symlink() and path.readlink().is_relative_to("/proc")
    if into_proc or (path.exists() and not path.is_file()):
        kind = "folder" if path.is_dir() else "device, pipe or socket"
        raise UsageError(f"{path}: is a {kind}", remedy or "name a file")
    if not next(folder for folder in path.parents if folder.exists()).is_dir():
        raise UsageError(
            f"{path}: cannot write there ({os.strerror(errno.ENOTDIR)})", remedy or "choose another folder"
        )


def _refuse_existing(path: Path, overwrite: bool) -> None:
    refuse_special(path)
    if not overwrite and (path.exists() or path.is_symlink()):
        raise UsageError(f"{path}: exists already", "pass `overwrite` to replace it, or name another file")


@contextmanager
def made(folder: Path) -> Iterator[None]:
    """Create a folder and its parents. If the block fails, those that are new are removed, unless they have files."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for place in missing:
            with suppress(OSError):
                place.rmdir()
        raise


def flush_to_disk(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk (fsync). Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
