"""Files that are too large for the package: download them into the cache of torch hub. Knows no metric."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from urllib.request import Request, urlopen

import torch

from vaectl.errors import DamagedError, VaectlError
from vaectl.io.atomic_write import atomic_write
from vaectl.io.checksum import sha256_of
from vaectl.io.lock import one_at_a_time
from vaectl.io.parsing import parsing, size_of
from vaectl.progress import Progress, Silent

TIMEOUT_SECONDS = 30.0
"""How long to wait for the next byte."""
PERIOD_SECONDS, MIN_BYTES_PER_PERIOD = 60.0, 2**20
"""A slower download is given up."""
CHUNK = 2**20


def cached(
    name: str, url: str, sha256: str, parameter: str, progress: Progress | None = None, instead: str = ""
) -> Path:
    """Return the file `name` in `torch.hub.get_dir()/checkpoints`; if it is missing, download it atomically from `url`.

    An existing file is checked too. Raises VaectlError if the file cannot be fetched, comes too slowly, or has another
    SHA-256; the remedy is where to put it, or the `parameter` that takes its path; `instead` follows it.
    """
    file, progress = in_cache(name), progress or Silent()
    if file.exists():
        size_of(file)
        with parsing(file, "cannot be read; get it again"):
            found = sha256_of(file)
        if found != sha256:
            raise DamagedError(
                f"{file}: is damaged, or not the file of that name (SHA-256 {found[:8]}…, not {sha256[:8]}…)",
                f"remove it to fetch it again, or pass the right one as `{parameter}`",
            )
        return file
    try:
        make_once(file, lambda temporary: fetch(url, temporary, sha256, progress), progress)
    except (OSError, ValueError, VaectlError) as error:
        raise VaectlError(
            f"{url} cannot be fetched ({reason_of(error)})",
            f"put the file at {file}, or pass its path as `{parameter}`{instead}",
        ) from None
    return file


def in_cache(name: str) -> Path:
    """Return the path of a file in the cache of torch hub."""
    return Path(torch.hub.get_dir()) / "checkpoints" / name


def make_once(file: Path, make: Callable[[Path], None], progress: Progress) -> None:
    """Write `file` atomically: `make` fills the path that it gets. Skipped if another process does so meanwhile."""
    with one_at_a_time(file, lambda: progress.note(f"waiting for another process that fetches {file}")):
        if not file.exists():
            with atomic_write(file, overwrite=True) as temporary:
                make(temporary)


def reason_of(error: Exception) -> str:
    """Return why something cannot be fetched, in one line."""
    return (
        error.problem if isinstance(error, VaectlError) else " ".join(re.sub(r"^\[Errno \d+\]", "", str(error)).split())
    )


def fetch(url: str, file: Path, sha256: str, progress: Progress) -> None:
    """Download `url` to `file`. Raises OSError if that fails or stalls, ValueError for another SHA-256."""
    with (
        urlopen(Request(url, headers={"User-Agent": "vaectl"}), timeout=TIMEOUT_SECONDS) as answer,
        file.open("wb") as target,
    ):
        length = answer.headers.get("Content-Length", "")
        total = int(length) // CHUNK if length.isdecimal() and len(length) < 16 else None
        progress.note(f"fetching {url}" + (f" ({total} MiB)" if total else ""))
        progress.start("download", total, "MiB")
        try:
            digest, received, since, then = hashlib.sha256(), 0, time.monotonic(), 0
            while part := answer.read1(CHUNK):
                digest.update(part)
                target.write(part)
                progress.advance((received + len(part)) // CHUNK - received // CHUNK)
                received += len(part)
                if time.monotonic() - since > PERIOD_SECONDS:
                    if received - then < MIN_BYTES_PER_PERIOD:
                        raise TimeoutError(f"{received - then} bytes in {PERIOD_SECONDS:.0f} s")
                    since, then = time.monotonic(), received
        finally:
            progress.finish()
    if digest.hexdigest() != sha256:
        raise ValueError(f"invalid hash value: SHA-256 {digest.hexdigest()[:8]}…, not {sha256[:8]}…")
